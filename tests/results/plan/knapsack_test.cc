// The knapsack against all assignments there are, and against all divisions of more layers.
#include "results/plan/knapsack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/random.h"
#include "results/serving/kv_allocation.h"
#include "tests/results/plan/enumeration.h"
#include "tests/scratch.h"

namespace winnow::plan {
namespace {

using serving::KvKind;

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// On a lattice many losses are equal; some are negative: a measured window may well help.
stats::Table<double> made_up_losses(int64_t n_layers, int64_t n_settings, uint64_t seed, bool on_lattice) {
  RandomStream random(seed, 1, 0);
  stats::Table<double> loss(n_layers, n_settings);
  for (double& value : loss.values) {
    value = on_lattice ? 0.125 * static_cast<double>(random.below(40)) - 0.5
                       : 1e-6 * static_cast<double>(random.below(5'000'000)) - 0.5;
  }
  for (int64_t l = 0; l < n_layers; ++l) loss(l, n_settings - 1) = 0.0;
  return loss;
}

// What an engine is asked for, and what it is to make of it by the rules that are written down in words.
struct Engine {
  std::string target;
  std::string family;
  std::vector<KvKind> settings;
  std::vector<KvKind> fixed;
};

std::vector<KvKind> settings_of(const std::vector<int64_t>& windows, const std::vector<KvType>& types) {
  std::vector<KvKind> settings;
  for (const int64_t window : windows) {
    for (const KvType type : types) settings.push_back({window, type});
  }
  for (const KvType type : types) {
    if (type != KvType::kStored) settings.push_back({0, type});
  }
  settings.push_back({});
  return settings;
}

Service service_of(const std::string& target) {
  // 2 heads of 4 in two bytes: with fp8 a token takes half as much.
  return {.engine = target,
          .shape = {.n_kv_heads = 2, .head_dim = 4, .element_bytes = 2},
          .demand = {.max_seq_len = 4096, .concurrency = 3, .chunk = 64}};
}

Pricing pricing_of(const Engine& engine) {
  const Service service = service_of(engine.target);
  return {service, rules_of(service, engine.family), engine.settings, engine.fixed};
}

// The price layer by layer, from the allocator and the rules of the engine's table.
std::optional<double> price_of(const Engine& engine, const Counts& counts) {
  const Service service = service_of(engine.target);
  std::vector<KvKind> layers = engine.fixed;
  for (std::size_t s = 0; s < counts.size(); ++s) {
    layers.insert(layers.end(), static_cast<std::size_t>(counts[s]), engine.settings[s]);
  }
  std::vector<int64_t> windows;
  std::vector<KvType> types;
  for (const KvKind& kind : layers) {
    windows.push_back(kind.window);
    types.push_back(kind.type);
  }
  const serving::Engine* known = serving::find_engine(service.engine);
  if (known == nullptr) {
    return serving::kv_allocation(service.engine, windows, service.shape, service.demand, types).ideal_bytes;
  }
  if (!serving::kv_obstacle(*known, types).empty()) return std::nullopt;
  std::set<int64_t> sizes(windows.begin(), windows.end());
  if (engine.target == "mlx" && !sizes.contains(0)) return std::nullopt;
  sizes.erase(0);
  const bool has_several = engine.target == "trtllm" || (engine.target == "vllm" && engine.family == "qwen3");
  if (!has_several && sizes.size() > 1) return std::nullopt;
  return serving::kv_allocation(known->name, windows, service.shape, service.demand, types).allocated_bytes;
}

Counts counts_of(const std::vector<int64_t>& setting, std::size_t n_settings) {
  Counts counts(n_settings, 0);
  for (const int64_t s : setting) ++counts[static_cast<std::size_t>(s)];
  return counts;
}

double loss_of(const stats::Table<double>& loss, const std::vector<int64_t>& setting) {
  double sum = 0.0;
  for (std::size_t l = 0; l < setting.size(); ++l) sum += loss(static_cast<int64_t>(l), setting[l]);
  return sum;
}

constexpr int64_t kLayers = 8;
constexpr int64_t kSettings = 4;

// The settings of all layers as one number, in which the last layer weighs most.
std::vector<int64_t> assignment(int64_t number) {
  std::vector<int64_t> setting;
  for (int64_t l = 0; l < kLayers; ++l, number /= kSettings) setting.push_back(number % kSettings);
  return setting;
}

// The price of every assignment of 8 layers, infinite where the engine does not run it.
std::vector<double> all_prices(const Engine& engine) {
  std::map<Counts, double> known;
  std::vector<double> prices;
  for (int64_t number = 0; number < 1 << 16; ++number) {
    const Counts counts = counts_of(assignment(number), kSettings);
    const auto [at, is_new] = known.emplace(counts, 0.0);
    if (is_new) at->second = price_of(engine, counts).value_or(kInfinite);
    prices.push_back(at->second);
  }
  return prices;
}

// Least loss, then lower price, then the smaller setting in the last layer that differs.
std::tuple<double, double, int64_t> brute_force(const std::vector<double>& losses, const std::vector<double>& prices,
                                                double budget) {
  std::tuple<double, double, int64_t> best{kInfinite, kInfinite, -1};
  for (std::size_t i = 0; i < prices.size(); ++i) {
    if (prices[i] <= budget) best = std::min(best, {losses[i], prices[i], static_cast<int64_t>(i)});
  }
  return best;
}

constexpr KvType kStored = KvType::kStored;

std::vector<Engine> small_engines() {
  const std::vector<KvKind> windows = settings_of({64, 256, 1024}, {kStored});
  const std::vector<KvKind> types = {{64, kStored}, {1024, KvType::kFp8}, {0, KvType::kFp8}, {}};
  const std::vector<KvKind> kept(3, {256, kStored});
  const std::vector<KvKind> sums = {{64, KvType::kInt4}, {256, KvType::kFp8}, {0, KvType::kInt8}, {}};
  return {{"ideal", "qwen3", windows, {}},       {"ideal", "qwen3", sums, {}},   {"trtllm", "qwen3", windows, {}},
          {"trtllm", "qwen3", types, {}},        {"mlx", "qwen3", windows, {}},  {"mlx", "qwen3", windows, kept},
          {"hf", "qwen3", windows, {}},          {"hf", "qwen3", windows, kept}, {"vllm", "qwen3", windows, {}},
          {"vllm", "qwen3", types, {}},          {"vllm", "qwen3", types, kept}, {"vllm", "qwen2", types, {}},
          {"vllm", "qwen2", windows, kept},      {"vllm", "qwen3", sums, {}},    {"sglang", "qwen3", types, {}},
          {"sglang", "qwen3", windows, {{}, {}}}};
}

// 8 layers x 4 settings: sums over layers, such with a layer that must have full attention, one window for all, a pool
// that couples layers, with types of keys and values, and beside layers that no plan changes.
TEST(Knapsack, FindsWhatBruteForceFinds) {
  constexpr uint64_t kSeeds = 6;
  std::vector<std::vector<double>> all_losses(kSeeds);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const stats::Table<double> loss = made_up_losses(kLayers, kSettings, seed, seed % 2 == 0);
    for (int64_t i = 0; i < 1 << 16; ++i) all_losses[seed].push_back(loss_of(loss, assignment(i)));
  }
  for (const Engine& engine : small_engines()) {
    const Pricing pricing = pricing_of(engine);
    const std::string name = engine.target + " " + engine.family;
    const std::vector<double> prices = all_prices(engine);
    const double least = std::ranges::min(prices);
    double most = 0.0;
    for (const double price : prices) most = price < kInfinite ? std::max(most, price) : most;
    EXPECT_EQ(least_price(kLayers, pricing), least) << name;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const stats::Table<double> loss = made_up_losses(kLayers, kSettings, seed, seed % 2 == 0);
      for (const double budget : {least, 1.1 * least, 1.5 * least, 2.5 * least, 0.5 * (least + most), most}) {
        const auto [least_loss, price, number] = brute_force(all_losses[seed], prices, budget);
        const std::optional<Assignment> found = best_assignment(loss, pricing, budget);
        ASSERT_TRUE(found) << name << " " << seed << " " << budget;
        EXPECT_EQ(found->loss, least_loss) << name << " " << seed << " " << budget;
        EXPECT_EQ(found->price, price) << name << " " << seed << " " << budget;
        // It is what it says.
        EXPECT_EQ(loss_of(loss, found->setting), found->loss);
        EXPECT_EQ(price_of(engine, counts_of(found->setting, kSettings)), found->price);
        // On a lattice sums are exact, and so is the rule for ties.
        if (seed % 2 == 0) {
          EXPECT_EQ(found->setting, assignment(number)) << name << " " << seed << " " << budget;
        }
      }
      EXPECT_FALSE(best_assignment(loss, pricing, std::nextafter(least, 0.0))) << name;
    }
  }
}

// 12 layers x 6 settings on every engine, with the types that it has.
TEST(Knapsack, FindsWhatAllDivisionsHave) {
  std::vector<Engine> engines = {{"ideal", "qwen3", settings_of({64, 1024}, {kStored, KvType::kInt4}), {}}};
  for (const serving::Engine& engine : serving::engines()) {
    engines.push_back({std::string(engine.target), "qwen3", settings_of({16, 64, 256, 1024, 2048}, {kStored}), {}});
    if (serving::kv_word(engine, KvType::kFp8).empty()) continue;
    engines.push_back({std::string(engine.target), "qwen3", settings_of({64, 1024}, {kStored, KvType::kFp8}), {}});
  }
  ASSERT_EQ(engines.size(), 1 + serving::engines().size() + 3);
  std::vector<Enumeration> divisions;
  for (uint64_t seed = 0; seed < 3; ++seed) divisions.emplace_back(made_up_losses(12, 6, seed, seed == 0));
  for (const Engine& engine : engines) {
    const Pricing pricing = pricing_of(engine);
    const double full = price_of(engine, {0, 0, 0, 0, 0, 12}).value();
    const std::vector<double> prices =
        divisions.front().prices([&](const Counts& counts) { return price_of(engine, counts); });
    EXPECT_EQ(least_price(12, pricing), std::ranges::min(prices)) << engine.target;
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const stats::Table<double> loss = made_up_losses(12, 6, seed, seed == 0);
      for (const double share : {0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0}) {
        const LossAndPrice expected = divisions[seed].best(prices, share * full);
        const std::optional<Assignment> found = best_assignment(loss, pricing, share * full);
        ASSERT_EQ(found.has_value(), expected.first < kInfinite) << engine.target << " " << seed << " " << share;
        if (!found) continue;
        EXPECT_EQ(found->loss, expected.first) << engine.target << " " << seed << " " << share;
        EXPECT_EQ(found->price, expected.second) << engine.target << " " << seed << " " << share;
      }
    }
  }
}

// No enumeration reaches so deep: an independent programme over all sums of units has the same.
TEST(Knapsack, IsAsGoodInDeepModels) {
  const std::vector<KvKind> settings = settings_of({64, 128, 256, 512, 1024}, {kStored, KvType::kFp8});
  const Engine ideal{kIdeal, "qwen3", settings, {}};
  const Pricing pricing = pricing_of(ideal);
  const auto n_settings = static_cast<int64_t>(settings.size());
  ASSERT_EQ(n_settings, 12);
  constexpr int64_t kUnit = 64 / 2 * 2 * 2 * 4 * 2 * 3;  // a window of 64 in fp8, three sequences
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const stats::Table<double> loss = made_up_losses(94, n_settings, seed, seed == 0);
    // By units that are taken, the least loss.
    std::vector<double> least(94 * 4096 * 2 / 64 + 1, kInfinite);
    least[0] = 0.0;
    for (int64_t l = 0; l < loss.rows; ++l) {
      std::vector<double> next(least.size(), kInfinite);
      for (int64_t s = 0; s < n_settings; ++s) {
        const KvKind& kind = settings[static_cast<std::size_t>(s)];
        const int64_t keys = kind.window == 0 ? 4096 : kind.window;
        const auto units = static_cast<std::size_t>(keys / 64 * (kind.type == kStored ? 2 : 1));
        for (std::size_t u = units; u < next.size(); ++u) next[u] = std::min(next[u], least[u - units] + loss(l, s));
      }
      least = std::move(next);
    }
    for (const std::size_t units :
         {std::size_t{94}, std::size_t{300}, std::size_t{1000}, std::size_t{3000}, std::size_t{9000}}) {
      const double expected = *std::min_element(least.begin(), least.begin() + static_cast<std::ptrdiff_t>(units) + 1);
      const std::optional<Assignment> found = best_assignment(loss, pricing, static_cast<double>(units) * kUnit);
      ASSERT_TRUE(found) << units;
      EXPECT_EQ(found->loss, expected) << units;
      EXPECT_LE(found->price, static_cast<double>(units) * kUnit);
    }
  }
}

TEST(Knapsack, GivesUpInOneLine) {
  // Layers that lose nothing or one at a time, in a pool of groups: bounds tell nothing apart.
  const Engine vllm{"vllm", "qwen3", settings_of({64, 128, 256, 512, 1024}, {kStored, KvType::kFp8}), {}};
  const Pricing pricing = pricing_of(vllm);
  RandomStream random(1, 1, 0);
  stats::Table<double> loss(94, 12);
  for (double& value : loss.values) value = static_cast<double>(random.below(2));
  const double budget = 0.3 * pricing.price({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 94}).value();
  const Found found = find_best(loss, pricing, budget, 1 << 18);
  EXPECT_FALSE(found.is_exact);
  ASSERT_TRUE(found.best);
  EXPECT_LE(found.best->price, budget);
  // More settings than a beginning can tell apart.
  std::vector<KvKind> many;
  for (int64_t window = 1; window <= 40; ++window) many.push_back({window, kStored});
  many.push_back({});
  const Pricing of_many = pricing_of({"vllm", "qwen3", many, {}});
  expect_error([&] { best_assignment(stats::Table<double>(94, 41), of_many, 1e9); }, ExitCode::kUsage,
               {"94 layers", "41 settings", "--windows"});
}

TEST(Knapsack, ASingleSettingLeavesNoChoice) {
  const Pricing pricing(service_of(kIdeal), {}, {{16, kStored}}, {});
  const std::optional<Assignment> found = best_assignment(stats::Table<double>(3, 1), pricing, 1e9);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->setting, (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(found->price, 3 * 16 * 2.0 * 2 * 4 * 2 * 3);
}

}  // namespace
}  // namespace winnow::plan
