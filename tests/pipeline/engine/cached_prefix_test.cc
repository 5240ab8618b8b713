// Sweeps over the tail rows against cached keys and values equal sweeps over all rows, bit for bit.

#include "pipeline/engine/cached_prefix.h"
#include "kernels/cpu/cpu.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "pipeline/engine/sweep_plan.h"
#include "tests/small_model.h"

namespace winnow::engine {
namespace {

// A base in the middle of a search, and variants that differ from it in one layer or in more.
void set_patterns(SweepRequest& request, const kernels::Window& window) {
  winnow::set_patterns(request, window, {true, false, true, true},
                       {{true, true, true, true},
                        {false, false, true, true},
                        {true, false, false, true},
                        {true, false, true, false},
                        {true, false, true, true},
                        {false, false, false, false},
                        {false, true, false, true}});
}

struct Case {
  const char* name;
  int64_t n_tokens;
  int64_t answer_tokens;
  int64_t keys;
  int64_t sinks;
  int64_t tail_rows;
  bool decode_full;
};

kernels::Window window_of(const Case& c) {
  const int64_t a = c.n_tokens - c.answer_tokens;
  return {c.keys, c.sinks, a - c.tail_rows, c.decode_full ? a : kernels::kNoLimit};
}

SweepRequest request_of(const Case& c, const std::vector<int32_t>& tokens) {
  SweepRequest request = drop_one(tokens, c.n_tokens - c.answer_tokens, window_of(c), 4);
  set_patterns(request, window_of(c));
  return request;
}

class PrefixCases : public ::testing::TestWithParam<std::tuple<Case, CachedPrefix::Place>> {};

TEST_P(PrefixCases, GivesWhatTheWholeSweepGives) {
  const auto& [c, place] = GetParam();
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(c.n_tokens, 128, 3);
  SweepRequest request = request_of(c, tokens);
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const SweepResult whole = sweep(*ops, model.config, weights, request, {});

  request.prefix_rows = cached_rows(c.n_tokens, window_of(c), ops->device().row_tile());
  ASSERT_GT(request.prefix_rows, 0);
  const int64_t before = ops->device().allocated_bytes();
  ops->device().reset_peak();
  const CachedPrefix prefix(*ops, model.config, weights, request, place, {});
  const int64_t kept = CachedPrefix::size_bytes(model.config, *ops, request.prefix_rows);
  const bool on_host = place == CachedPrefix::Place::kHost;
  EXPECT_EQ(ops->device().allocated_bytes() - before, on_host ? 0 : kept);
  EXPECT_LE(ops->device().peak_allocated_bytes() - before - (on_host ? 0 : kept),
            CachedPrefix::workspace_bytes(model.config, *ops, request, place));
  request.prefix = &prefix;
  ops->device().reset_peak();
  const int64_t with_prefix = ops->device().allocated_bytes();
  const SweepResult tail = sweep(*ops, model.config, weights, request, {});
  EXPECT_EQ(ops->device().peak_allocated_bytes() - with_prefix,
            predict_sweep_bytes(model.config, *ops, std::span(&request, 1)));
  expect_same(tail.base, whole.base, "base");
  for (std::size_t v = 0; v < whole.variants.size(); ++v) {
    expect_same(tail.variants[v], whole.variants[v], "variant " + std::to_string(v));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PrefixCases,
    ::testing::Combine(::testing::Values(Case{"tail of 0", 400, 20, 40, 3, 0, false},
                                         Case{"answer at a tile", 400, 400 - 256, 40, 3, 0, false},
                                         Case{"tail of 100", 400, 20, 40, 3, 100, false},
                                         Case{"tail, full decode", 400, 70, 40, 3, 5, true},
                                         Case{"one key", 300, 9, 1, 0, 1, false},
                                         Case{"answer shorter than what the window leaves", 300, 100, 220, 3, 5, false},
                                         Case{"no row differs", 300, 20, 1000, 0, 5, false},
                                         Case{"tail longer than the prompt", 300, 20, 130, 0, 1000, false}),
                       ::testing::Values(CachedPrefix::Place::kBackend, CachedPrefix::Place::kHost)),
    [](const auto& tested) {
      std::string name = std::get<0>(tested.param).name;
      for (char& ch : name) ch = ch == ' ' || ch == ',' ? '_' : ch;
      return name + (std::get<1>(tested.param) == CachedPrefix::Place::kHost ? "_host" : "");
    });

TEST(CachedPrefix, AShortExampleHasNone) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(60, 128, 3);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const kernels::Window window{10, 0, 50, kernels::kNoLimit};
  SweepRequest request = drop_one(tokens, 50, window, 4);
  EXPECT_EQ(cached_rows(60, window, ops->device().row_tile()), 0);
  PrefixCache cache(*ops, model.config, weights);
  cache.provide(0, CachedPrefix::Place::kBackend, request, {});
  EXPECT_EQ(request.prefix, nullptr);
}

TEST(CachedPrefix, StackedRequestsWithAndWithoutGiveWhatEachAloneGives) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  std::vector<std::vector<int32_t>> tokens;
  for (const int64_t n : {300, 411, 350, 64}) tokens.push_back(random_tokens(n, 128, static_cast<uint32_t>(n)));
  std::vector<SweepRequest> requests;
  std::vector<int64_t> prefix_rows;
  for (const auto& t : tokens) {
    const auto n = static_cast<int64_t>(t.size());
    const kernels::Window window{30, 2, n - 14, kernels::kNoLimit};
    requests.push_back(drop_one(t, n - 10, window, 4));
    set_patterns(requests.back(), window);
    prefix_rows.push_back(cached_rows(n, window, ops->device().row_tile()));
  }
  std::vector<SweepResult> whole;
  for (const SweepRequest& request : requests) whole.push_back(sweep(*ops, model.config, weights, request, {}));

  // The longest in the backend's memory, the next on the host, for the third there is no room, the last has none.
  std::vector<int64_t> bytes;
  for (const int64_t n_rows : prefix_rows) bytes.push_back(CachedPrefix::size_bytes(model.config, *ops, n_rows));
  const PrefixPlan plan = plan_prefixes(bytes, 1, {.backend_bytes = bytes[1], .host_bytes = bytes[2]});
  EXPECT_EQ(plan.place, (std::vector<std::optional<CachedPrefix::Place>>{std::nullopt, CachedPrefix::Place::kBackend,
                                                                         CachedPrefix::Place::kHost, std::nullopt}));
  EXPECT_EQ(plan.backend_bytes, bytes[1]);
  EXPECT_EQ(plan.host_bytes, bytes[2]);
  PrefixCache cache(*ops, model.config, weights);
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<SweepRequest> cached = requests;
    const int64_t before = ops->device().allocated_bytes();
    for (std::size_t r = 0; r < cached.size(); ++r) {
      if (!plan.place[r]) continue;
      cached[r].prefix_rows = prefix_rows[r];
      cache.provide(static_cast<int64_t>(r), *plan.place[r], cached[r], {});
    }
    EXPECT_EQ(ops->device().allocated_bytes() - before, repeat == 0 ? bytes[1] : 0);
    ASSERT_NE(cached[1].prefix, nullptr);
    ASSERT_NE(cached[2].prefix, nullptr);
    EXPECT_FALSE(cached[1].prefix->is_on_host());
    EXPECT_TRUE(cached[2].prefix->is_on_host());
    const std::vector<SweepResult> together = sweep(*ops, model.config, weights, cached, {});
    for (std::size_t r = 0; r < cached.size(); ++r) {
      expect_same(together[r].base, whole[r].base, "base " + std::to_string(r));
      for (std::size_t v = 0; v < whole[r].variants.size(); ++v) {
        expect_same(together[r].variants[v], whole[r].variants[v], std::to_string(r) + " " + std::to_string(v));
      }
    }
  }
}

TEST(PrefixPlan, SharesExamplesOutBySize) {
  const std::vector<int64_t> sizes = {10, 40, 20, 30, 0, 0};
  const PrefixPlan plan = plan_prefixes(sizes, 2, {.backend_bytes = 40, .host_bytes = 10});
  EXPECT_EQ(plan.owner[1], 0);
  EXPECT_EQ(plan.owner[3], 1);
  EXPECT_EQ(plan.owner[2], 1);
  EXPECT_EQ(plan.owner[0], 0);
  using Place = CachedPrefix::Place;
  EXPECT_EQ(plan.place, (std::vector<std::optional<Place>>{Place::kHost, Place::kBackend, std::nullopt, Place::kBackend,
                                                           std::nullopt, std::nullopt}));
  EXPECT_EQ(plan.backend_bytes, 40);
  EXPECT_EQ(plan.host_bytes, 10);
  const PrefixPlan empty = plan_prefixes(std::vector<int64_t>{0, 0, 0, 0}, 2, {});
  EXPECT_EQ(std::count(empty.owner.begin(), empty.owner.end(), 0), 2);
}

TEST(CachedPrefix, SavesTheRowsBeforeTheTail) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(1025, 128, 3);
  const kernels::Window window{96, 4, 1000 - 32, kernels::kNoLimit};
  SweepRequest request = drop_one(tokens, 1000, window, 4);
  const SweepPlan whole = plan_sweep(model.config, request, 64);
  request.prefix_rows = cached_rows(1025, window, 64);
  EXPECT_EQ(request.prefix_rows, 960);
  const SweepPlan tail = plan_sweep(model.config, request, 64);
  EXPECT_EQ(whole.row_layers - tail.row_layers, 4 * 960);
  EXPECT_EQ(whole.attention_pairs - tail.attention_pairs, 4 * 960 * 961 / 2);
}

TEST(CachedPrefix, StopsBetweenLayersAndRefusesAnother) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(300, 128, 3);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const kernels::Window window{20, 0, 270, kernels::kNoLimit};
  SweepRequest request = drop_one(tokens, 280, window, 4);
  PrefixCache cache(*ops, model.config, weights);
  int layers = 0;
  SweepRequest stopped = request;
  stopped.prefix_rows = cached_rows(300, window, ops->device().row_tile());
  EXPECT_THROW(cache.provide(0, CachedPrefix::Place::kBackend, stopped, [&] { return ++layers == 2; }), Interrupted);
  request.prefix_rows = 128;  // of a prefix that is not there
  EXPECT_THROW(sweep(*ops, model.config, weights, request, {}), Error);
}

}  // namespace
}  // namespace winnow::engine
