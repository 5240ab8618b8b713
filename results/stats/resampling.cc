#include "results/stats/resampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "results/stats/correlation.h"

namespace winnow::stats {
namespace {

// An interval stands on the resamples in which its figure is defined; with more than this share of them undefined it
// would describe another population.
constexpr double kMaxUndefinedShare = 0.05;

}  // namespace

std::vector<double> mean_of_rows(const Table<double>& table, std::span<const int64_t> rows) {
  std::vector<double> sum(at(table.cols), 0.0);
  std::vector<double> n_values(at(table.cols), 0.0);
  for (const int64_t row : rows) {
    const double* values = &table.values[at(row * table.cols)];
    for (std::size_t c = 0; c < sum.size(); ++c) {
      const bool is_there = !std::isnan(values[c]);
      sum[c] += is_there ? values[c] : 0.0;
      n_values[c] += is_there ? 1.0 : 0.0;
    }
  }
  for (std::size_t c = 0; c < sum.size(); ++c) sum[c] /= n_values[c];
  return sum;
}

std::vector<int64_t> iota(int64_t n) {
  std::vector<int64_t> values(at(n));
  std::iota(values.begin(), values.end(), int64_t{0});
  return values;
}

std::vector<int64_t> order_of(std::span<const double> mean, std::span<const int64_t> layer) {
  std::vector<int64_t> order = iota(static_cast<int64_t>(mean.size()));
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return mean[at(a)] != mean[at(b)] ? mean[at(a)] > mean[at(b)] : layer[at(a)] < layer[at(b)];
  });
  return order;
}

std::vector<int64_t> draw_rows(int64_t n, uint64_t seed, int64_t resample, uint64_t stream) {
  RandomStream random(seed, stream, static_cast<uint64_t>(resample));
  std::vector<int64_t> rows(at(n));
  for (int64_t& row : rows) row = random.below(n);
  return rows;
}

Interval percentile_interval(std::span<double> values) {
  std::sort(values.begin(), values.end());
  return {quantile(values, kLowQuantile), quantile(values, kHighQuantile)};
}

Estimate Spread::around(const Figure& figure, const std::string& too_many) {
  if (!figure.defined()) return {figure, figure, figure};
  const auto n_undefined = n_ - static_cast<int64_t>(defined_.size());
  if (static_cast<double>(n_undefined) > kMaxUndefinedShare * static_cast<double>(n_)) {
    return with_undefined_interval(figure, too_many.empty()
                                               ? "not defined in " + std::to_string(n_undefined) + " of " +
                                                     std::to_string(n_) + " draws: all values are equal there"
                                               : too_many);
  }
  const Interval interval = percentile_interval(defined_);
  return {figure, Figure::of(interval.low), Figure::of(interval.high)};
}

bool all_equal(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [&](double value) { return value == values.front(); });
}

Estimate with_undefined_interval(const Figure& figure, const std::string& why) {
  return {figure, Figure::undefined(why), Figure::undefined(why)};
}

}  // namespace winnow::stats
