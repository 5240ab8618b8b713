// Means over drawn examples, and the intervals that figures get from many draws, which all statistics share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/random.h"
#include "results/stats/figure.h"
#include "results/stats/table.h"

namespace winnow::stats {

inline constexpr double kLowQuantile = 0.025;
inline constexpr double kHighQuantile = 0.975;
// Bound on the draws that a command may ask for: a figure of each is held.
inline constexpr int64_t kMaxDraws = 1'000'000;

inline std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

// Returns the mean; NaN for no values.
template <typename T>
double mean_of(const std::vector<T>& values) {
  double sum = 0.0;
  for (const T value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

// Returns the mean of values[row] over the given rows (with repeats), at least one.
template <typename Values>
double mean_of(const Values& values, std::span<const int64_t> rows) {
  double sum = 0.0;
  for (const int64_t row : rows) sum += static_cast<double>(values[at(row)]);
  return sum / static_cast<double>(rows.size());
}

// Returns the same of every column of a table, (cols): cells that are NaN have no figure and are passed over; NaN where
// a column has none.
std::vector<double> mean_of_rows(const Table<double>& table, std::span<const int64_t> rows);

std::vector<int64_t> iota(int64_t n);

// Returns the columns by falling mean, ties by layer index.
std::vector<int64_t> order_of(std::span<const double> mean, std::span<const int64_t> layer);

// Draws the n rows of one bootstrap resample, each in [0, n), with replacement. They follow from the arguments alone:
// all figures of a result that are resampled with one seed and stream are over the same rows.
std::vector<int64_t> draw_rows(int64_t n, uint64_t seed, int64_t resample, uint64_t stream = kResampleStream);

// Interval between the quantiles above.
struct Interval {
  double low;
  double high;
};
// Returns the interval of values in any order, at least one, and sorts them.
Interval percentile_interval(std::span<double> values);

// Values of a figure over resamples or splits, of which some may not have it.
class Spread {
 public:
  void add(std::optional<double> value) {
    ++n_;
    if (value) defined_.push_back(*value);
  }
  // Returns the percentile interval around `figure`: undefined where the figure is, and where too many draws have no
  // value. `too_many`: the reason in the second case, in other words than that all values are equal there.
  Estimate around(const Figure& figure, const std::string& too_many = "");

 private:
  int64_t n_ = 0;
  std::vector<double> defined_;
};

bool all_equal(std::span<const double> values);

Estimate with_undefined_interval(const Figure& figure, const std::string& why);

}  // namespace winnow::stats
