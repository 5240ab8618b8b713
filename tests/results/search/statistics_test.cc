// How well the figures that a search decided on agree with exact ones.
#include <gtest/gtest.h>

#include "results/search/results.h"
#include "results/search/statistics.h"

namespace winnow::search {
namespace {

// Two examples whose NLLs are the given mean -+ 0.25.
ExampleFigures figures(double nll_nats, uint8_t first_match, uint8_t second_match) {
  return {.nll = {nll_nats - 0.25, nll_nats + 0.25},
          .exact_match = {first_match, second_match},
          .token_accuracy = {1.0, 1.0},
          .kl = {}};
}

// Two patterns with one full layer, then two with two; the first of each is what the search chose.
SearchResults four_patterns() {
  SearchResults results;
  results.plan.objective = Objective::kNll;
  results.n_verified_examples = 2;
  results.patterns = {{"list:0", {false, true, true}, figures(1, 1, 1), figures(1, 1, 1)},
                      {"list:1", {true, false, true}, figures(2, 1, 0), figures(2, 1, 0)},
                      {"list:0,1", {false, false, true}, figures(3, 0, 0), figures(4, 0, 0)},
                      {"list:0,2", {false, true, false}, figures(4, 0, 0), figures(3, 0, 0)}};
  results.best = {0, 2};
  return results;
}

TEST(ScreeningAgreement, IsTheOneWorkedOutByHand) {
  const ScreeningAgreement agreement = compute_agreement(four_patterns(), 0, 100);
  EXPECT_EQ(agreement.n_verified, 4);
  EXPECT_DOUBLE_EQ(agreement.rho_nll.value.value, 0.8);  // ranks 1 2 3 4 and 1 2 4 3: 1 - 6 * 2 / (4 * 15)
  EXPECT_DOUBLE_EQ(agreement.rho_exact_match.value.value, 1.0);
  // The chosen pattern is better than the rejected one with one full layer, and worse with two.
  EXPECT_DOUBLE_EQ(agreement.wins_kept.value, 0.5);
}

TEST(ScreeningAgreement, NothingVerifiedIsNothingCompared) {
  SearchResults results = four_patterns();
  for (MeasuredPattern& pattern : results.patterns) pattern.verified = {};
  EXPECT_EQ(compute_agreement(results, 0, 100).n_verified, 0);
}

TEST(ScreeningAgreement, OnePatternHasNoOrderAndSaysSo) {
  SearchResults results = four_patterns();
  results.patterns.resize(1);
  results.best = {0};
  const ScreeningAgreement agreement = compute_agreement(results, 0, 100);
  EXPECT_FALSE(agreement.rho_nll.value.defined());
  EXPECT_EQ(agreement.rho_nll.value.status, "fewer than two patterns");
  EXPECT_EQ(agreement.wins_kept.status, "no rejected pattern was verified");
}

}  // namespace
}  // namespace winnow::search
