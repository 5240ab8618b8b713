#include "results/stats/bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>

#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::stats {
namespace {

// Variances below this share of the row's are rounding: all values of the draw are equal.
constexpr double kNoVariance = 1e-12;

struct Moments {
  double mean = 0.0;
  double variance = 0.0;  // with n - 1 in its denominator
};

// Of values less `centre`, which keeps the digits of a small variance.
Moments moments_of(const double* values, std::span<const int64_t> rows, double centre) {
  double sum = 0.0;
  double squares = 0.0;
  for (const int64_t row : rows) {
    const double value = values[row] - centre;
    sum += value;
    squares += value * value;
  }
  const auto n = static_cast<double>(rows.size());
  return {sum / n, std::max(0.0, squares - sum * sum / n) / (n - 1.0)};
}

// The t of a draw; infinite where the draw has no spread but another mean.
double studentised(const Moments& draw, const Moments& all, int64_t n) {
  if (draw.variance > kNoVariance * all.variance) return draw.mean / std::sqrt(draw.variance / static_cast<double>(n));
  if (draw.mean * draw.mean <= kNoVariance * all.variance) return 0.0;
  return std::copysign(std::numeric_limits<double>::infinity(), draw.mean);
}

// Probability that the values of a draw are all equal.
double chance_of_no_spread(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<double>(sorted.size());
  double chance = 0.0;
  for (auto begin = sorted.begin(); begin != sorted.end();) {
    const auto end = std::upper_bound(begin, sorted.end(), *begin);
    chance += std::pow(static_cast<double>(end - begin) / n, n);
    begin = end;
  }
  return chance;
}

// Adjusted Fisher-Pearson coefficient; 0 for two values, which have none.
double skewness_of(std::span<const double> values, double mean, const Moments& moments) {
  const auto n = static_cast<double>(values.size());
  if (values.size() < 3) return 0.0;
  double cubes = 0.0;
  for (const double value : values) cubes += (value - mean) * (value - mean) * (value - mean);
  return n / ((n - 1.0) * (n - 2.0)) * cubes / (moments.variance * std::sqrt(moments.variance));
}

// A row of the table that a draw can say something of.
struct Row {
  int64_t index = 0;
  double mean = 0.0;
  Moments moments;
  double skewness = 0.0;
  double chance = 0.0;  // of a draw without spread
};

// Error of the quantile that bounds the mean on the side of a long limb. Few examples show too little of it: the t of
// their draws are too small, the more so the more skewed they are. Draws without spread must not decide.
double error_with_skewness(const std::vector<Row>& rows, double side) {
  double skewness = 0.0;
  double chance = 0.0;
  for (const Row& row : rows) {
    skewness += side * row.skewness / static_cast<double>(rows.size());
    chance += row.chance;
  }
  return std::max(kBoundError / (1.0 + std::max(0.0, skewness)), std::min(kBoundError, 2.0 * chance));
}

}  // namespace

MeanBounds mean_bounds(const Table<double>& values, uint64_t seed, int64_t n_resamples) {
  const int64_t n = values.cols;
  MeanBounds bounds;
  bounds.lower.assign(at(values.rows), std::numeric_limits<double>::quiet_NaN());
  bounds.upper = bounds.lower;
  if (n < 2) return bounds;
  const std::vector<int64_t> all = iota(n);
  std::vector<Row> rows;
  for (int64_t row = 0; row < values.rows; ++row) {
    const double* of_row = &values.values[at(row * n)];
    if (all_equal({of_row, at(n)})) {
      bounds.lower[at(row)] = bounds.upper[at(row)] = of_row[0];
      continue;
    }
    const double chance = chance_of_no_spread({of_row, at(n)});
    if (chance > kBoundError / (2.0 * static_cast<double>(values.rows))) continue;
    const double mean = mean_of(of_row, all);
    const Moments moments = moments_of(of_row, all, mean);
    rows.push_back({row, mean, moments, skewness_of({of_row, at(n)}, mean, moments), chance});
  }
  if (rows.empty()) return bounds;
  std::vector<double> largest, smallest;  // t of each draw
  for (int64_t r = 0; r < n_resamples; ++r) {
    const std::vector<int64_t> draw = draw_rows(n, seed, r);
    largest.push_back(-std::numeric_limits<double>::infinity());
    smallest.push_back(std::numeric_limits<double>::infinity());
    for (const Row& row : rows) {
      const double t = studentised(moments_of(&values.values[at(row.index * n)], draw, row.mean), row.moments, n);
      largest.back() = std::max(largest.back(), t);
      smallest.back() = std::min(smallest.back(), t);
    }
  }
  std::sort(largest.begin(), largest.end());
  std::sort(smallest.begin(), smallest.end());
  const double least = student_quantile_above(kBoundError / static_cast<double>(rows.size()), n - 1);
  // A draw whose t is too large has a mean too high for its spread: so may the examples, and the truth lies below.
  bounds.lower_critical = std::max(least, quantile_step(largest, 1.0 - error_with_skewness(rows, -1.0)));
  bounds.upper_critical = std::max(least, -quantile_step(smallest, error_with_skewness(rows, 1.0)));
  for (const Row& row : rows) {
    const double error = std::sqrt(row.moments.variance / static_cast<double>(n));
    bounds.lower[at(row.index)] = row.mean - bounds.lower_critical * error;
    bounds.upper[at(row.index)] = row.mean + bounds.upper_critical * error;
  }
  return bounds;
}

OneMeanBounds student_bounds(std::span<const double> values, double error) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const auto n = static_cast<int64_t>(values.size());
  // Values that are all equal say how often there are others, not how far off those are.
  if (n < 2 || all_equal(values)) return {-kInfinite, kInfinite};
  const std::vector<int64_t> all = iota(n);
  const double mean = mean_of(values, all);
  const Moments moments = moments_of(values.data(), all, mean);
  const double skewness = skewness_of(values, mean, moments);
  const double distance = student_quantile_above(error, n - 1) * std::sqrt(moments.variance / static_cast<double>(n));
  const auto longer = [](double skewness_of_side) { return 1.0 + kSkewnessFactor * std::max(0.0, skewness_of_side); };
  // A long limb above that the values lack would raise their mean.
  return {mean - longer(-skewness) * distance, mean + longer(skewness) * distance};
}

double standard_error(const double* values, int64_t n) {
  if (n < 2) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<int64_t> all = iota(n);
  return std::sqrt(moments_of(values, all, mean_of(values, all)).variance / static_cast<double>(n));
}

double student_quantile_above(double error, int64_t degrees) {
  // The probability between -t and t is a finite sum for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and
  // 26.7.4). Angles whose tangent is t / sqrt(degrees) are halved, so that t has no bound.
  const auto inside = [&](double angle) {
    const double cosine = std::cos(angle);
    const bool is_odd = degrees % 2 != 0;
    double term = is_odd ? cosine : 1.0;
    double sum = degrees == 1 ? 0.0 : term;
    for (int64_t k = is_odd ? 2 : 1; k + 2 <= degrees - 1; k += 2) {
      term *= cosine * cosine * static_cast<double>(k) / static_cast<double>(k + 1);
      sum += term;
    }
    const double part = std::sin(angle) * sum;
    return is_odd ? 2.0 / std::numbers::pi * (angle + part) : part;
  };
  double low = 0.0;
  double high = std::numbers::pi / 2.0;
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (inside(middle) < 1.0 - 2.0 * error ? low : high) = middle;
  }
  return std::tan(0.5 * (low + high)) * std::sqrt(static_cast<double>(degrees));
}

}  // namespace winnow::stats
