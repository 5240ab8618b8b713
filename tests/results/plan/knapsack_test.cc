// The knapsack against all assignments there are.
#include "results/plan/knapsack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/random.h"
#include "results/serving/kv_allocation.h"
#include "tests/scratch.h"

namespace winnow::plan {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Some losses are equal, some negative: a measured window may well help.
stats::Table<double> made_up_losses(int64_t n_layers, int64_t n_settings, uint64_t seed) {
  RandomStream random(seed, 1, 0);
  stats::Table<double> loss(n_layers, n_settings);
  for (double& value : loss.values) value = 0.125 * static_cast<double>(random.below(40)) - 0.5;
  for (int64_t l = 0; l < n_layers; ++l) loss(l, n_settings - 1) = 0.0;
  return loss;
}

Counts counts_of(const std::vector<int64_t>& setting, int64_t n_settings) {
  Counts counts(static_cast<std::size_t>(n_settings), 0);
  for (const int64_t s : setting) ++counts[static_cast<std::size_t>(s)];
  return counts;
}

double loss_of(const stats::Table<double>& loss, const std::vector<int64_t>& setting) {
  double sum = 0.0;
  for (std::size_t l = 0; l < setting.size(); ++l) sum += loss(static_cast<int64_t>(l), setting[l]);
  return sum;
}

using LossAndPrice = std::pair<double, double>;

// Of every assignment that something runs.
std::vector<LossAndPrice> all_assignments(const stats::Table<double>& loss, const Price& price) {
  std::map<Counts, std::optional<double>> known;
  std::vector<LossAndPrice> all;
  std::vector<int64_t> setting(static_cast<std::size_t>(loss.rows), 0);
  while (true) {
    const Counts counts = counts_of(setting, loss.cols);
    if (!known.contains(counts)) known[counts] = price(counts);
    if (known[counts]) all.emplace_back(loss_of(loss, setting), *known[counts]);
    auto digit = setting.begin();
    while (digit != setting.end() && ++*digit == loss.cols) *digit++ = 0;
    if (digit == setting.end()) return all;
  }
}

LossAndPrice brute_force(const std::vector<LossAndPrice>& all, double budget) {
  LossAndPrice best{kInfinite, kInfinite};
  for (const LossAndPrice& each : all) {
    if (each.second <= budget) best = std::min(best, each);
  }
  return best;
}

// 8 layers x 4 settings under the rules of engines: sums over layers, a pool that couples layers, one size of window.
TEST(Knapsack, FindsWhatBruteForceFinds) {
  const std::vector<int64_t> keys = {64, 256, 1024, 0};
  const serving::KvShape shape{.n_kv_heads = 1, .head_dim = 1, .element_bytes = 1};
  const serving::KvDemand demand{.max_seq_len = 4096, .concurrency = 1, .chunk = 64};
  for (const char* engine : {"transformers", "vllm", "trtllm"}) {
    const bool has_one_size = std::string(engine) == "transformers";
    const Price price = [&](const Counts& counts) -> std::optional<double> {
      std::vector<int64_t> windows;
      int64_t n_sizes = 0;
      for (std::size_t s = 0; s < counts.size(); ++s) {
        windows.insert(windows.end(), static_cast<std::size_t>(counts[s]), keys[s]);
        n_sizes += keys[s] > 0 && counts[s] > 0 ? 1 : 0;
      }
      if (has_one_size && n_sizes > 1) return std::nullopt;
      return serving::kv_allocation(engine, windows, shape, demand).allocated_bytes;
    };
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const stats::Table<double> loss = made_up_losses(8, 4, seed);
      const Knapsack knapsack(loss);
      const Knapsack::Prices prices = knapsack.prices(price);
      const double least = Knapsack::least(prices);
      const std::vector<LossAndPrice> all = all_assignments(loss, price);
      for (const double budget : {least, 1.1 * least, 1.5 * least, 2.5 * least, 8.0 * 2 * 4096}) {
        const auto expected = brute_force(all, budget);
        const auto found = knapsack.best(prices, budget);
        ASSERT_TRUE(found) << engine << " " << seed << " " << budget;
        EXPECT_EQ(found->loss, expected.first) << engine << " " << seed << " " << budget;
        EXPECT_EQ(found->price, expected.second) << engine << " " << seed << " " << budget;
        // It is what it says.
        EXPECT_EQ(loss_of(loss, found->setting), found->loss);
        EXPECT_EQ(price(counts_of(found->setting, 4)), found->price);
        EXPECT_EQ(knapsack.best(prices, budget)->setting, found->setting);
      }
      EXPECT_FALSE(knapsack.best(prices, std::nextafter(least, 0.0))) << engine;
    }
  }
}

TEST(Knapsack, ASingleSettingLeavesNoChoice) {
  const Knapsack knapsack(stats::Table<double>(3, 1));
  const auto prices = knapsack.prices([](const Counts& counts) { return static_cast<double>(counts[0]); });
  ASSERT_EQ(prices, std::vector<double>{3.0});
  EXPECT_EQ(knapsack.best(prices, 3.0)->setting, (std::vector<int64_t>{0, 0, 0}));
}

TEST(Knapsack, RefusesMoreThanItCanHold) {
  expect_error([] { Knapsack(stats::Table<double>(80, 12)); }, ExitCode::kUsage, {"80 layers", "12 settings"});
}

}  // namespace
}  // namespace winnow::plan
