// Bounds of means on rows whose draws follow a binomial distribution, so that their quantiles can be worked by hand.
#include "results/stats/bounds.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace winnow::stats {
namespace {

constexpr int64_t kDraws = 10000;

// The first so many values are 1, the others 0.
Table<double> ones(int64_t n_ones, int64_t n) {
  Table<double> table(1, n);
  for (int64_t e = 0; e < n_ones; ++e) table(0, e) = 1.0;
  return table;
}

TEST(MeanBounds, QuantilesOfStudentAreThoseOfTheTables) {
  EXPECT_NEAR(student_quantile_above(0.05, 1), 6.3138, 5e-5);
  EXPECT_NEAR(student_quantile_above(0.05, 2), 2.9200, 5e-5);
  EXPECT_NEAR(student_quantile_above(0.05, 7), 1.8946, 5e-5);
  EXPECT_NEAR(student_quantile_above(0.005, 15), 2.9467, 5e-5);
  EXPECT_NEAR(student_quantile_above(0.001, 100), 3.1737, 5e-5);
}

TEST(MeanBounds, StandardErrorHasOneLessInItsDenominator) {
  const std::vector<double> values = {1.0, 2.0, 6.0};  // squares around 3: 4 + 1 + 9 = 14
  EXPECT_DOUBLE_EQ(standard_error(values.data(), 3), std::sqrt(14.0 / 2.0 / 3.0));
  EXPECT_TRUE(std::isnan(standard_error(values.data(), 1)));
}

TEST(MeanBounds, StudentIsTheLeast) {
  // 4 ones of 8: the 5 % quantile of the draws is at 2 ones, t = -0.25 / sqrt(3 / 16 / 7) = -1.53.
  const MeanBounds bounds = mean_bounds(ones(4, 8), 1, kDraws);
  const double error = std::sqrt(2.0 / 7.0 / 8.0);
  EXPECT_NEAR(bounds.upper_critical, 1.8946, 5e-5);
  EXPECT_NEAR(bounds.upper[0], 0.5 + 1.8946 * error, 5e-5);
  EXPECT_NEAR(bounds.lower[0], 0.5 - 1.8946 * error, 5e-5);
}

TEST(MeanBounds, SkewedRowsGetTheQuantileOfTheirDraws) {
  // 4 ones of 16: no one is in 1.0 % of the draws, at most one in 6.4 %: the 5 % quantile is at one,
  // t = (1 / 16 - 1 / 4) / sqrt(15 / 256 / 15) = -3. Above, 7 ones are the quantile, t = 1.46: Student's is 1.7531.
  const MeanBounds bounds = mean_bounds(ones(4, 16), 1, kDraws);
  const double error = std::sqrt(3.0 / 15.0 / 16.0);
  EXPECT_NEAR(bounds.upper_critical, 3.0, 1e-9);
  EXPECT_NEAR(bounds.upper[0], 0.25 + 3.0 * error, 1e-9);
  EXPECT_NEAR(bounds.lower[0], 0.25 - 1.7531 * error, 5e-5);
}

TEST(MeanBounds, SkewnessDividesTheError) {
  // 6 ones of 24: at most one in 0.9 % of the draws, at most two in 4.0 %, at most three in 11.5 %. The skewness is
  // (1 - 2 / 4) / sqrt(3 / 16) sqrt(24 * 23) / 22 = 1.233, so the quantile is that of 5 % / 2.233 = 2.2 %: two ones,
  // t = (2 / 24 - 6 / 24) / sqrt(2 / 24 * 22 / 24 / 23) = -2.892; that of 5 % were three, -1.81.
  const Table<double> table = ones(6, 24);
  const MeanBounds bounds = mean_bounds(table, 1, kDraws);
  const double expected = 4.0 / 24.0 / std::sqrt(44.0 / 576.0 / 23.0);
  EXPECT_NEAR(bounds.upper_critical, expected, 1e-9);
  // The mirror image has its long limb below.
  Table<double> mirrored(1, 24);
  for (int64_t e = 0; e < 24; ++e) mirrored(0, e) = 1.0 - table(0, e);
  EXPECT_NEAR(mean_bounds(mirrored, 1, kDraws).lower_critical, expected, 1e-9);
  EXPECT_NEAR(mean_bounds(mirrored, 1, kDraws).upper_critical, bounds.lower_critical, 1e-9);
}

TEST(MeanBounds, DrawsWithoutSpreadDoNotDecide) {
  // 4 ones of 64 are in none of 1.6 % of the draws, and the skewness of 3.7 asks for the quantile of 1.1 %.
  const MeanBounds bounds = mean_bounds(ones(4, 64), 1, kDraws);
  EXPECT_TRUE(std::isfinite(bounds.upper[0]));
  EXPECT_NEAR(bounds.upper_critical, (3.0 / 64.0) / std::sqrt(63.0 / 4096.0 / 63.0), 1e-9);  // one 1
}

TEST(MeanBounds, MoreRowsHaveWiderBounds) {
  Table<double> table(2, 8);
  for (int64_t e = 0; e < 8; ++e) table(0, e) = table(1, 7 - e) = e < 4 ? 1.0 : 0.0;
  const MeanBounds bounds = mean_bounds(table, 1, kDraws);
  // Of two rows that mirror each other, one has at most one 1 in 7.0 % of the draws: t = -0.375 / 0.125.
  EXPECT_NEAR(bounds.upper_critical, 3.0, 1e-9);
  EXPECT_NEAR(bounds.lower_critical, 3.0, 1e-9);
}

TEST(MeanBounds, AreUndefinedWhereDrawsHaveNoSpread) {
  const MeanBounds few = mean_bounds(ones(2, 16), 1, kDraws);  // no one in 11.8 % of the draws
  EXPECT_TRUE(std::isnan(few.upper[0]) && std::isnan(few.lower[0]));
  EXPECT_TRUE(std::isnan(mean_bounds(ones(1, 1), 1, kDraws).upper[0]));
  const MeanBounds equal = mean_bounds(ones(0, 5), 1, kDraws);
  EXPECT_EQ(equal.upper[0], 0.0);
  EXPECT_EQ(equal.upper_critical, 0.0);
}

TEST(MeanBounds, FollowFromTheSeed) {
  Table<double> table(3, 20);
  for (std::size_t i = 0; i < table.values.size(); ++i)
    table.values[i] = std::exp(3.0 * std::sin(static_cast<double>(i * i)));
  const MeanBounds a = mean_bounds(table, 5, 2000);
  EXPECT_EQ(a.upper, mean_bounds(table, 5, 2000).upper);
  EXPECT_NE(a.upper, mean_bounds(table, 6, 2000).upper);
}

}  // namespace
}  // namespace winnow::stats
