// Means over drawn examples, and the intervals that figures get from many draws: what the statistics of a run share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "results/stats/figure.h"
#include "results/stats/table.h"

namespace winnow::stats {

inline constexpr double kLowQuantile = 0.025;
inline constexpr double kHighQuantile = 0.975;

inline std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

// NaN for no values.
template <typename T>
double mean_of(const std::vector<T>& values) {
  double sum = 0.0;
  for (const T value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

// Mean of the given rows (with repeats), per column. Rows that begin with NaN have no figures and are passed over; NaN
// where no row is left.
std::vector<double> mean_of_rows(const Table<double>& table, std::span<const int64_t> rows);

std::vector<int64_t> iota(int64_t n);

// Columns by falling mean, ties by layer index.
std::vector<int64_t> order_of(std::span<const double> mean, std::span<const int64_t> layer);

// Rows of one bootstrap resample.
std::vector<int64_t> draw_rows(int64_t n, uint64_t seed, int64_t resample);

// Values of a figure over resamples or splits, of which some may not have it.
class Spread {
 public:
  void add(std::optional<double> value) {
    ++n_;
    if (value) defined_.push_back(*value);
  }
  // Percentile interval around `figure`, which is undefined where the figure is.
  Estimate around(const Figure& figure);

 private:
  int64_t n_ = 0;
  std::vector<double> defined_;
};

bool all_equal(std::span<const double> values);

Estimate with_undefined_interval(const Figure& figure, const std::string& why);

}  // namespace winnow::stats
