// Plans on deltas whose end can be worked by hand.
#include "results/plan/settling.h"

#include <gtest/gtest.h>

#include <cmath>

#include "results/stats/bounds.h"

namespace winnow::plan {
namespace {

constexpr int64_t kExamples = 40;

// Two settings, a window and full attention. The window costs 3 nats in layer 0 and 1 in layer 1, each with some noise.
std::vector<stats::Table<double>> deltas(double noise) {
  std::vector<stats::Table<double>> by_setting(2, stats::Table<double>(kExamples, 2));
  for (int64_t e = 0; e < kExamples; ++e) {
    by_setting[0](e, 0) = 3.0 + noise * static_cast<double>((e * 3) % 5 - 2);
    by_setting[0](e, 1) = 1.0 + noise * static_cast<double>((e * 4) % 7 - 3);
  }
  return by_setting;
}

// A key and its value take 2 bytes, a layer with full attention has 10 of them.
Pricing pricing(std::vector<serving::KvKind> settings) {
  const Service service{
      .engine = kIdeal, .shape = {.n_kv_heads = 1, .head_dim = 1, .element_bytes = 1}, .demand = {.max_seq_len = 10}};
  return {service, {}, std::move(settings), {}};
}
Pricing pricing() { return pricing({{.window = 1}, {}}); }

TEST(PlanSettling, AClearChoiceIsSettledAtTheFirstLook) {
  const std::vector<PlanLook> looks = settle(deltas(0.01), pricing(), 22.0, 0.95, {.value = 0.0, .is_share = false});
  ASSERT_EQ(looks.size(), 4U);  // 16, 24, 32 and all
  EXPECT_EQ(looks.front().n_examples, 16);
  EXPECT_EQ(looks.back().n_examples, kExamples);
  for (const PlanLook& look : looks) EXPECT_TRUE(look.is_settled());
}

TEST(PlanSettling, TheGainIsTheSumOfTheBounds) {
  // With a noise of 1 the other plan, layer 1 full and layer 0 windowed, is better by at most
  // (bound of layer 1 above) - (bound of layer 0 below), and the same plan by 0.
  const std::vector<stats::Table<double>> delta = deltas(2.0);
  const std::vector<PlanLook> looks = settle(delta, pricing(), 22.0, 0.95, {.value = 0.01, .is_share = true});
  std::vector<double> of_layer[2];
  for (int64_t e = 0; e < 16; ++e) {
    for (int64_t l = 0; l < 2; ++l) of_layer[l].push_back(delta[0](e, l));
  }
  const double error = 0.025 / 4.0;  // 2 layers, one pair of settings each, two bounds
  const double gain = stats::student_bounds(of_layer[1], error).upper - stats::student_bounds(of_layer[0], error).lower;
  ASSERT_GT(gain, 0.0);
  EXPECT_NEAR(looks.front().gain, gain, 1e-12);
  EXPECT_FALSE(looks.front().is_settled());
  const double least = std::max(0.0, stats::student_bounds(of_layer[0], error).lower) +
                       std::max(0.0, stats::student_bounds(of_layer[1], error).lower);
  EXPECT_NEAR(looks.front().tolerance_nats, 0.01 * least, 1e-12);
}

TEST(PlanSettling, AShareIsOfTheSettingThatIsNamed) {
  // Settings need not rise: here the second one costs ten times as much as the first.
  std::vector<stats::Table<double>> delta = deltas(0.1);
  delta.insert(delta.begin() + 1, delta.front());
  for (double& value : delta[1].values) value *= 10.0;
  const Pricing three = pricing({{.window = 2}, {.window = 1}, {}});
  const race::Tolerance share{.value = 0.01, .is_share = true};
  const double of_first = settle(delta, three, 40.0, 0.95, share).front().tolerance_nats;
  const double of_second = settle(delta, three, 40.0, 0.95, share, 1).front().tolerance_nats;
  ASSERT_GT(of_first, 0.0);
  EXPECT_NEAR(of_second, 10.0 * of_first, 1e-12);
}

TEST(PlanSettling, OfAllMemoryThereIsNothingToDecide) {
  for (const PlanLook& look : settle(deltas(0.1), pricing(), 40.0, 0.95, {.value = 0.0, .is_share = false})) {
    EXPECT_TRUE(look.is_settled());
  }
}

TEST(PlanSettling, NothingIsWithinTheBudget) { EXPECT_TRUE(settle(deltas(0.1), pricing(), 2.0, 0.95, {}).empty()); }

}  // namespace
}  // namespace winnow::plan
