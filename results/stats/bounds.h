// One-sided bounds of means that hold together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "results/stats/table.h"

namespace winnow::stats {

// Probability that one of the lower bounds of a table is too high; the same that one of the upper bounds is too low.
inline constexpr double kBoundError = 0.05;

struct MeanBounds {
  // (rows); NaN for one value, and where so few values differ from the others that draws of equal ones decide.
  std::vector<double> lower, upper;
  // Standard errors between a mean and its bound, the same in all rows; 0 where no row has a spread.
  double lower_critical = 0.0, upper_critical = 0.0;
};

// Returns bounds of the mean of every row of `values`, whose columns are the examples, by the studentised bootstrap
// with max-t: a draw of the examples gives every row t = (mean of the draw - mean) / standard error of the draw, and
// the critical value is the quantile of the draws' largest t, but at least that of Student's t with the error divided
// among the rows, as draws of few examples vary too little. On the side of the long limb of skewed rows the quantile is
// that of the error divided by 1 + the rows' mean skewness, as few examples show too little of such a limb. A row whose
// values are all equal has that value as its bounds.
MeanBounds mean_bounds(const Table<double>& values, uint64_t seed, int64_t n_resamples);

// Bounds of one mean, each of which is wrong with about that probability.
struct OneMeanBounds {
  double lower = 0.0, upper = 0.0;  // infinite where the values say nothing: one value, or all are equal
};
// Returns the bounds of Student's t, for probabilities that are too small for draws: on the side of the long limb of
// skewed values the critical value is longer by the factor 1 + kSkewnessFactor * skewness. The factor was chosen on
// the first cases of tests/bench/coverage/race_coverage.cc; the others there check it.
inline constexpr double kSkewnessFactor = 1.0;
OneMeanBounds student_bounds(std::span<const double> values, double error);

// Returns the standard error of the mean, with n - 1 in the denominator of the variance; NaN for one value.
double standard_error(const double* values, int64_t n);

// Returns t with P(Student's t of that many degrees of freedom > t) = `error`, in (0, 0.5).
double student_quantile_above(double error, int64_t degrees);

}  // namespace winnow::stats
