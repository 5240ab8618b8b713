// Ranks, quantiles and Spearman's rho. Pure functions; exact integers where the definition allows them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace winnow::stats {

// Returns twice the average rank (1 = smallest) of each value: ties share the mean of their ranks, and twice that is an
// integer.
std::vector<int64_t> doubled_average_ranks(std::span<const double> values);

// Returns Spearman's rho, Pearson's correlation of the average ranks; none where it is not defined: fewer than two
// values, or all values equal on either side. Sizes must agree.
std::optional<double> spearman(std::span<const double> x, std::span<const double> y);

// Average ranks of a column, doubled and less their mean: computed once for its correlations with several others.
struct CentredRanks {
  std::vector<int64_t> values;
  int64_t sum_of_squares = 0;  // 0: all values of the column are equal
};
CentredRanks centred_ranks(std::span<const double> values);
std::optional<double> spearman(const CentredRanks& x, const CentredRanks& y);

// Returns the two-sided permutation p of Spearman's rho: (b + 1) / (n_permutations + 1), b = number of random orders of
// y whose |rho| is at least the observed one (compared as integers, so ties count as ties). Same domain as spearman().
std::optional<double> spearman_permutation_p(std::span<const double> x, std::span<const double> y,
                                             int64_t n_permutations, uint64_t seed);

// Returns quantile q in [0, 1] of sorted values (at least one), linear between order statistics (numpy's default, type
// 7).
double quantile(std::span<const double> sorted, double q);
// Returns the smallest of the sorted values that at least a share q of them does not exceed (type 1): always one of the
// values.
double quantile_step(std::span<const double> sorted, double q);

}  // namespace winnow::stats
