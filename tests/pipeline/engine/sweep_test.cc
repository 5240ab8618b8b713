// Properties of the layer sweep on the CPU that hold bit for bit.

#include "pipeline/engine/sweep.h"
#include "kernels/cpu/cpu.h"

#include <gtest/gtest.h>
#include <memory>

#include "base/error.h"
#include "pipeline/engine/sweep_plan.h"
#include "tests/small_model.h"

namespace winnow::engine {
namespace {

// The same where both were measured beside the same base.
void expect_same_beside_base(const Score& a, const Score& b, const std::string& what) {
  expect_same(a, b, what);
  EXPECT_EQ(a.kl_nats, b.kl_nats) << what;
}

struct Case {
  const char* name;
  int64_t n_tokens;
  int64_t answer_tokens;
  int64_t keys;
  int64_t sinks;
  int64_t tail_rows;  // -1: none
  bool decode_full;
};

kernels::Window window_of(const Case& c) {
  const int64_t answer_start = c.n_tokens - c.answer_tokens;
  return {c.keys, c.sinks, c.tail_rows < 0 ? 0 : answer_start - c.tail_rows,
          c.decode_full ? answer_start : kernels::kNoLimit};
}

class SweepCases : public ::testing::TestWithParam<Case> {};

TEST_P(SweepCases, EqualsSeparatePassesBitForBit) {
  const Case& c = GetParam();
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(c.n_tokens, 128, 3);
  const SweepRequest request = drop_one(tokens, c.n_tokens - c.answer_tokens, window_of(c), 4);
  expect_equals_separate_passes(model, request, c.name);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, SweepCases,
    ::testing::Values(Case{"window and sinks", 300, 20, 40, 3, -1, false}, Case{"one key", 200, 9, 1, 0, -1, false},
                      Case{"all keys but one", 150, 9, 149, 0, -1, false}, Case{"all keys", 150, 9, 150, 0, -1, false},
                      Case{"more sinks than keys", 260, 30, 20, 90, -1, false},
                      Case{"full decode", 300, 70, 40, 3, -1, true}, Case{"tail of 0", 300, 20, 40, 3, 0, false},
                      Case{"tail of 1", 300, 20, 40, 3, 1, false}, Case{"tail of 100", 300, 20, 40, 3, 100, false},
                      Case{"tail longer than the prompt", 300, 20, 40, 3, 1000, false},
                      Case{"tail, full decode", 300, 20, 40, 3, 5, true}, Case{"two tokens", 2, 1, 1, 0, -1, false},
                      Case{"answer of one token", 129, 1, 30, 2, -1, false},
                      Case{"shorter than the window", 30, 5, 64, 0, -1, false},
                      Case{"answer longer than the window", 200, 190, 16, 1, -1, false}),
    [](const auto& tested) {
      std::string name = tested.param.name;
      for (char& ch : name) ch = ch == ' ' || ch == ',' ? '_' : ch;
      return name;
    });

TEST(Sweep, WindowsChangeTheNllWhereRowsAreHidden) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto tokens = random_tokens(300, 128, 3);
  const SweepResult result = model.run(drop_one(tokens, 280, {40, 3, 0, kernels::kNoLimit}, 3));
  for (const Score& variant : result.variants) EXPECT_NE(variant.nll_nats, result.base.nll_nats);
}

TEST(Sweep, DeltaIsExactlyZeroWhereTheWindowHidesNothing) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto tokens = random_tokens(200, 128, 3);
  for (const kernels::Window& window :
       {kernels::Window{200, 0, 0, kernels::kNoLimit}, kernels::Window{1000, 0, 0, kernels::kNoLimit},
        kernels::Window{150, 50, 0, kernels::kNoLimit}, kernels::Window{199, 0, 0, kernels::kNoLimit}}) {
    const SweepResult result = model.run(drop_one(tokens, 180, window, 3));
    for (const Score& variant : result.variants) expect_same(variant, result.base, std::to_string(window.keys));
  }
}

TEST(Sweep, DoesNotDependOnThreadsNorOnGroupingNorOnTheRun) {
  const Model model({.n_layers = 4, .hidden = 96, .ffn = 1100, .seed = 9});
  const auto tokens = random_tokens(333, 128, 4);
  SweepRequest all = drop_one(tokens, 300, {50, 2, 0, kernels::kNoLimit}, 4);
  all.with_kl = true;
  const SweepResult reference = model.run(all, 2);
  for (const int threads : {1, 2, 5}) {
    const SweepResult again = model.run(all, threads);
    for (std::size_t v = 0; v < 4; ++v) expect_same_beside_base(again.variants[v], reference.variants[v], "threads");
  }
  for (std::size_t v = 0; v < 4; ++v) {
    SweepRequest alone = all;
    alone.variants = {all.variants[v]};
    expect_same_beside_base(model.run(alone).variants[0], reference.variants[v], "alone");
  }
  SweepRequest reversed = all;
  std::reverse(reversed.variants.begin(), reversed.variants.end());
  const SweepResult backwards = model.run(reversed);
  for (std::size_t v = 0; v < 4; ++v)
    expect_same_beside_base(backwards.variants[3 - v], reference.variants[v], "order");
}

TEST(Sweep, KlIsPositiveWhereRowsAreHiddenAndExactlyZeroElsewhere) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto tokens = random_tokens(300, 128, 3);
  SweepRequest request = drop_one(tokens, 280, {40, 3, 0, kernels::kNoLimit}, 3);
  request.with_kl = true;
  request.variants.push_back(request.base);
  const SweepResult result = model.run(request);
  EXPECT_EQ(result.base.kl_nats, 0.0);
  EXPECT_EQ(result.variants[3].kl_nats, 0.0);
  for (std::size_t v = 0; v < 3; ++v) EXPECT_GT(result.variants[v].kl_nats, 1e-3) << v;
  SweepRequest wide = drop_one(tokens, 280, {300, 3, 0, kernels::kNoLimit}, 3);
  wide.with_kl = true;
  const SweepResult unseen = model.run(wide);
  for (const Score& variant : unseen.variants) EXPECT_EQ(variant.kl_nats, 0.0);
  request.with_kl = false;
  for (const Score& variant : model.run(request).variants) EXPECT_EQ(variant.kl_nats, 0.0) << "not asked for";
}

TEST(Sweep, TakesAnyBaseAndVariantsThatDifferInSeveralLayers) {
  const Model model({.n_layers = 4, .seed = 11});
  const auto tokens = random_tokens(260, 128, 5);
  const kernels::Window window{30, 2, 0, kernels::kNoLimit};
  SweepRequest request = drop_one(tokens, 240, window, 4);
  set_patterns(request, window, {true, false, true, true},
               {{true, false, true, true},     // the base itself
                {true, true, false, true},     // two layers
                {false, false, false, false},  // all full
                {true, true, true, true},
                {true, false, true, false}});
  expect_equals_separate_passes(model, request, "general form");
  expect_same(model.run(request).variants[0], model.run(request).base, "variant equal to the base");
}

TEST(Sweep, EveryFamilyAndHeadWorks) {
  for (const char* family : {"qwen3", "qwen2", "llama", "mistral"}) {
    for (const bool tied : {true, false}) {
      // qwen2 derives head_dim from hidden / heads in Transformers; keep to a shape that all families can have.
      const Model model({.model_type = family,
                         .n_layers = 2,
                         .hidden = 64,
                         .n_heads = 4,
                         .head_dim = 16,
                         .tied_embeddings = tied,
                         .dtype = kernels::DType::kF32,
                         .seed = 13});
      const auto tokens = random_tokens(150, 128, 6);
      expect_equals_separate_passes(model, drop_one(tokens, 140, {30, 1, 0, kernels::kNoLimit}, 2), family);
    }
  }
}

TEST(Sweep, PredictsItsAllocations) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(700, 128, 3);
  for (const int64_t tail : {-1, 0, 32}) {
    const kernels::Window window{60, 3, tail < 0 ? 0 : 680 - tail, kernels::kNoLimit};
    SweepRequest request = drop_one(tokens, 680, window, 4);
    request.with_kl = tail == 0;
    const auto ops = cpu::make_cpu_backend({.n_threads = 2});
    model::ModelWeights weights(model.config, *model.checkpoint, *ops);
    const int64_t before = ops->device().allocated_bytes();
    EXPECT_EQ(before, model::ModelWeights::predicted_bytes(model.config, *model.checkpoint, *ops));
    sweep(*ops, model.config, weights, request, {});
    EXPECT_EQ(ops->device().peak_allocated_bytes() - before,
              predict_sweep_bytes(model.config, *ops, std::span(&request, 1)));
    EXPECT_EQ(ops->device().allocated_bytes(), before);
  }
}

TEST(Sweep, StackedRequestsGiveWhatEachAloneGives) {
  const Model model({.n_layers = 4, .seed = 7});
  // Lengths on both sides of a tile, one that the window does not reach, another base, an answer of one token.
  const auto first = random_tokens(300, 128, 1);
  const auto second = random_tokens(64, 128, 2);
  const auto third = random_tokens(50, 128, 3);
  const auto fourth = random_tokens(411, 128, 4);
  std::vector<SweepRequest> requests = {
      drop_one(first, 280, {60, 3, 0, kernels::kNoLimit}, 4), drop_one(second, 63, {60, 3, 0, kernels::kNoLimit}, 4),
      drop_one(third, 40, {60, 3, 0, kernels::kNoLimit}, 4), drop_one(fourth, 400, {60, 3, 380, 400}, 4)};
  requests[0].base[2] = requests[0].variants[2][2];
  for (const std::size_t r : {0U, 2U, 3U}) requests[r].with_kl = true;
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  ops->device().reset_peak();
  const int64_t before = ops->device().allocated_bytes();
  const std::vector<SweepResult> together = sweep(*ops, model.config, weights, requests, {});
  EXPECT_EQ(ops->device().peak_allocated_bytes() - before, predict_sweep_bytes(model.config, *ops, requests));
  ASSERT_EQ(together.size(), requests.size());
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const SweepResult alone = sweep(*ops, model.config, weights, requests[r], {});
    EXPECT_EQ(together[r].base.token_nll_nats, alone.base.token_nll_nats) << r;
    for (std::size_t v = 0; v < 4; ++v) {
      EXPECT_EQ(together[r].variants[v].token_nll_nats, alone.variants[v].token_nll_nats) << r << " " << v;
      EXPECT_EQ(together[r].variants[v].nll_nats, alone.variants[v].nll_nats) << r << " " << v;
      EXPECT_EQ(together[r].variants[v].kl_nats, alone.variants[v].kl_nats) << r << " " << v;
    }
  }
}

TEST(Sweep, StopsBetweenLayersWhenAsked) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(200, 128, 3);
  const SweepRequest request = drop_one(tokens, 180, {60, 3, 0, kernels::kNoLimit}, 4);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  int layers = 0;
  EXPECT_THROW(sweep(*ops, model.config, weights, request, [&] { return ++layers == 2; }), Interrupted);
  EXPECT_EQ(layers, 2);
}

TEST(SweepPlan, LanesBeginAtTheFirstTileThatCanDiffer) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(1024, 128, 3);
  const auto plan = [&](const kernels::Window& window) {
    return plan_sweep(model.config, drop_one(tokens, 1000, window, 4), 64);
  };
  EXPECT_EQ(plan({96, 4, 0, kernels::kNoLimit}).lane_first_row, 64);
  EXPECT_EQ(plan({124, 4, 0, kernels::kNoLimit}).lane_first_row, 128);
  EXPECT_EQ(plan({96, 4, 1000 - 32, kernels::kNoLimit}).lane_first_row, 960);
  EXPECT_EQ(plan({96, 4, 0, kernels::kNoLimit}).n_lanes, 4);
  EXPECT_EQ(plan({1024, 0, 0, kernels::kNoLimit}).n_lanes, 0);
  // 4 layers of the base, and lanes that live 4, 3, 2 and 1 layers.
  EXPECT_EQ(plan({96, 4, 0, kernels::kNoLimit}).row_layers, 4 * 1024 + 10 * (1024 - 64));
}

}  // namespace
}  // namespace winnow::engine
