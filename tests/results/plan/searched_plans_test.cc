// Which plan a verified search recommends.
#include "results/plan/searched_plans.h"

#include <gtest/gtest.h>

namespace winnow {
namespace {

// Full attention, the plan by sum, and the one that the search found better; with verified NLL of two examples each.
plan::SearchedPlans verified(std::vector<double> by_sum, std::vector<double> searched) {
  plan::SearchedPlans found;
  found.plans.resize(3);
  found.plans[1].verified.nll = std::move(by_sum);
  found.plans[2].verified.nll = std::move(searched);
  return found;
}

const plan::RefinedBudget kBudget{.sum_of_layers = 1, .best = 2, .steps = 1, .is_settled = true};

TEST(ConfirmedPlanTest, IsTheSearchedOneWhereItIsBetterWithEveryRowWindowed) {
  EXPECT_EQ(plan::confirmed_plan(verified({2.0, 4.0}, {3.0, 2.0}), kBudget), 2);
}

TEST(ConfirmedPlanTest, IsTheSumsWhereTheSearchedOneIsNoBetter) {
  EXPECT_EQ(plan::confirmed_plan(verified({2.0, 3.0}, {3.0, 3.0}), kBudget), 1);
  EXPECT_EQ(plan::confirmed_plan(verified({2.0, 3.0}, {3.0, 2.0}), kBudget), 1);
}

TEST(ConfirmedPlanTest, IsTheSearchedOneWhereNothingWasVerified) {
  EXPECT_EQ(plan::confirmed_plan(verified({}, {}), kBudget), 2);
  EXPECT_EQ(plan::confirmed_plan(verified({}, {1.0}), kBudget), 2);
}

}  // namespace
}  // namespace winnow
