// Layers with windows of their own: several in one base, several among the variants of one sweep.

#include "pipeline/engine/layer_windows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/reference.h"
#include "pipeline/engine/sweep_plan.h"
#include "tests/small_model.h"
#include "tests/tolerances.h"

namespace winnow::engine {
namespace {

constexpr int64_t kTokens = 400;
constexpr int64_t kAnswerStart = 370;

// Windows whose rows begin to differ in unlike tiles, with and without sinks.
kernels::Window narrow(int64_t first_row = 0) { return {20, 2, first_row, kernels::kNoLimit}; }
kernels::Window wide(int64_t first_row = 0) { return {150, 0, first_row, kernels::kNoLimit}; }

// Each layer under each of the windows, one after another.
SweepRequest each_layer_under(const std::vector<int32_t>& tokens, const LayerWindows& base,
                              const std::vector<kernels::Window>& windows) {
  SweepRequest request = drop_one(tokens, kAnswerStart, {}, static_cast<int64_t>(base.size()));
  request.base = base;
  request.variants.clear();
  for (const kernels::Window& window : windows) {
    for (std::size_t layer = 0; layer < base.size(); ++layer) {
      request.variants.push_back(base);
      request.variants.back()[layer].window = window;
    }
  }
  return request;
}

LayerWindows full(int64_t n_layers) { return {static_cast<std::size_t>(n_layers), {kernels::full_attention()}}; }

TEST(LayerWindows, APatternWritesThemDown) {
  const LayerWindows windows = layer_windows_of({true, false, true}, narrow());
  EXPECT_EQ(windows, (LayerWindows{{narrow()}, {kernels::full_attention()}, {narrow()}}));
  EXPECT_EQ(layer_windows_of({false, false}, narrow()), full(2));
}

TEST(LayerWindows, AVariantIsBornWhereItsSettingDiffers) {
  const LayerWindows base{{narrow()}, {kernels::full_attention()}, {wide()}, {narrow()}};
  LayerWindows variant = base;
  EXPECT_EQ(fork_layer_of(base, variant), 4);
  EXPECT_GE(first_different_row(base, variant), kernels::kNoLimit);
  variant[2].window = kernels::full_attention();
  EXPECT_EQ(fork_layer_of(base, variant), 2);
  EXPECT_EQ(first_different_row(base, variant), 150) << "rows before see the same keys in all layers";
  variant[2].window = {30, 5, 0, kernels::kNoLimit};
  EXPECT_EQ(first_different_row(base, variant), 35);
  variant[1].window = wide(300);
  EXPECT_EQ(fork_layer_of(base, variant), 1);
  EXPECT_EQ(first_different_row(base, variant), 35);
  EXPECT_EQ(settings_of_first_rows(base, 22), full(base.size()));
  EXPECT_NE(settings_of_first_rows(base, 23), full(base.size()));
}

TEST(LayerWindows, TwoWindowsInOneSweepGiveWhatASweepForEachGives) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(kTokens, 128, 3);
  for (const int64_t first_row : {int64_t{0}, kAnswerStart - 10}) {
    SweepRequest both = each_layer_under(tokens, full(4), {narrow(first_row), wide(first_row)});
    both.with_kl = true;
    both.signals = {.names = {"sensitivity", "mass", "lazy"},
                    .removed_rows = 20,
                    .lazy = LazyWindow{.sinks = 3, .recent = 50, .last = 32}};
    const SweepResult together = model.run(both);
    for (std::size_t w = 0; w < 2; ++w) {
      SweepRequest alone = both;
      alone.variants.assign(both.variants.begin() + 4 * static_cast<std::ptrdiff_t>(w),
                            both.variants.begin() + 4 * static_cast<std::ptrdiff_t>(w + 1));
      const SweepResult separate = model.run(alone);
      expect_same(together.base, separate.base, "base");
      for (std::size_t l = 0; l < 4; ++l) {
        const std::string what = "window " + std::to_string(w) + ", layer " + std::to_string(l);
        const Score& found = together.variants[4 * w + l];
        const Score& expected = separate.variants[l];
        expect_same(found, expected, what);
        EXPECT_EQ(found.kl_nats, expected.kl_nats) << what;
        for (const char* variable : {"nll_removed", "attention_mass_outside_kv_head", "lazy_ratio"}) {
          ASSERT_TRUE(found.signals.contains(variable)) << what << ", " << variable;
          EXPECT_EQ(found.signals.at(variable), expected.signals.at(variable)) << what << ", " << variable;
        }
        EXPECT_NE(found.nll_nats, together.base.nll_nats) << what;
      }
    }
    for (std::size_t l = 0; l < 4; ++l) {
      EXPECT_NE(together.variants[l].nll_nats, together.variants[4 + l].nll_nats);
      const auto mass = [&](std::size_t v) {
        return together.variants[v].signals.at("attention_mass_outside_kv_head")[0];
      };
      EXPECT_GT(mass(l), mass(4 + l));
    }
  }
}

TEST(LayerWindows, ABaseOfTwoWindowsEqualsSeparatePassesAndTheReference) {
  const Model model({.n_layers = 4, .seed = 11});
  const auto tokens = random_tokens(kTokens, 128, 5);
  const LayerWindows base{{narrow()}, {kernels::full_attention()}, {wide()}, {narrow(kAnswerStart - 10)}};
  SweepRequest request = each_layer_under(tokens, base, {wide(), kernels::full_attention()});
  const SweepResult found = model.run(request);
  const auto expect_pass = [&](const LayerWindows& windows, const Score& score, const std::string& what) {
    SweepRequest plain = request;
    plain.base = windows;
    plain.variants.clear();
    expect_same(model.run(plain).base, score, what);
    const Score exact = reference_score(model.config, *model.checkpoint, tokens, kAnswerStart, windows);
    EXPECT_LE(std::abs(score.nll_nats - exact.nll_nats), kNllTolerance * (1.0 + std::abs(exact.nll_nats))) << what;
    EXPECT_EQ(score.token_accuracy, exact.token_accuracy) << what;
    return exact.nll_nats;
  };
  const double exact = expect_pass(base, found.base, "base");
  for (std::size_t v = 0; v < request.variants.size(); ++v) {
    expect_pass(request.variants[v], found.variants[v], "variant " + std::to_string(v));
  }
  // The reference tells such bases apart.
  LayerWindows other = base;
  other[2].window = narrow();
  const Score score = reference_score(model.config, *model.checkpoint, tokens, kAnswerStart, other);
  EXPECT_GT(std::abs(score.nll_nats - exact), 1e-3);
}

// Families with sink logits, one that has its experts in one tensor, and one for every kind of router.
TEST(LayerWindows, TheReferenceKnowsSinkLogitsAndExperts) {
  const auto tokens = random_tokens(kTokens, 128, 5);
  const LayerWindows base(3, {narrow()});
  for (const char* family :
       {"granite_swa", "gpt_oss", "qwen3_moe", "mixtral", "olmoe", "glm4_moe", "minimax_m2", "ernie4_5_moe"}) {
    const Model model({.model_type = family, .n_layers = 3, .seed = 12});
    const SweepResult found = model.run(each_layer_under(tokens, base, {kernels::full_attention()}));
    const Score exact = reference_score(model.config, *model.checkpoint, tokens, kAnswerStart, base);
    EXPECT_LE(std::abs(found.base.nll_nats - exact.nll_nats), kNllTolerance * (1.0 + std::abs(exact.nll_nats)))
        << family;
    // Whatever the threads and the rows beside it.
    EXPECT_EQ(model.run(each_layer_under(tokens, base, {kernels::full_attention()}), 1).base.nll_nats,
              found.base.nll_nats)
        << family;
  }
}

TEST(LayerWindows, LanesBeginWhereTheirOwnWindowDoes) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(kTokens, 128, 3);
  const auto plan = [&](const std::vector<kernels::Window>& windows) {
    return plan_sweep(model.config, each_layer_under(tokens, full(4), windows), 64);
  };
  const SweepPlan of_narrow = plan({narrow()});
  const SweepPlan of_wide = plan({wide()});
  const SweepPlan both = plan({narrow(), wide()});
  const SweepPlan base = plan({});
  EXPECT_EQ(of_narrow.lane_first_row, 0);
  EXPECT_EQ(of_wide.lane_first_row, 128);
  EXPECT_EQ(both.lane_first_row, 0);
  EXPECT_EQ(both.n_lanes, 8);
  EXPECT_EQ(both.row_layers, of_narrow.row_layers + of_wide.row_layers - base.row_layers);
  EXPECT_EQ(both.attention_pairs, of_narrow.attention_pairs + of_wide.attention_pairs - base.attention_pairs);
}

TEST(LayerWindows, APrefixServesTwoWindowsAndRefusesOneThatReachesIntoIt) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(kTokens, 128, 3);
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  // The second window's rows begin a tile later.
  SweepRequest request = each_layer_under(tokens, full(4), {narrow(kAnswerStart - 100), wide(kAnswerStart - 10)});
  const SweepResult whole = sweep(*ops, model.config, weights, request, {});
  request.prefix_rows = cached_rows(kTokens, narrow(kAnswerStart - 100), ops->device().row_tile());
  ASSERT_GT(request.prefix_rows, 0);
  PrefixCache cache(*ops, model.config, weights);
  cache.provide(0, CachedPrefix::Place::kBackend, request, {});
  ops->device().reset_peak();
  const int64_t before = ops->device().allocated_bytes();
  const SweepResult tail = sweep(*ops, model.config, weights, request, {});
  EXPECT_EQ(ops->device().peak_allocated_bytes() - before,
            predict_sweep_bytes(model.config, *ops, std::span(&request, 1)));
  expect_same(tail.base, whole.base, "base");
  for (std::size_t v = 0; v < whole.variants.size(); ++v) {
    expect_same(tail.variants[v], whole.variants[v], "variant " + std::to_string(v));
  }
  request.variants[0][0].window = narrow();
  EXPECT_THROW(sweep(*ops, model.config, weights, request, {}), Error);
}

TEST(LayerWindows, GeneratesWithTheCacheOfEachLayersOwnWindow) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto prompt = random_tokens(kTokens, 128, 6);
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const GenerationRequest request{.prompt = prompt,
                                  .windows = {{narrow()}, {wide()}, {kernels::full_attention()}},
                                  .max_new_tokens = 40,
                                  .name = "two windows"};
  const GenerationReport report = generate(*ops, model.config, weights, std::span(&request, 1), {}, {});
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), report.texts[0].tokens.begin(), report.texts[0].tokens.end());
  const auto is_greedy = [&](const LayerWindows& windows) {
    const SweepRequest pass{.tokens = all, .answer_start = kTokens, .base = windows, .variants = {}};
    return sweep(*ops, model.config, weights, pass, {}).base.exact_match;
  };
  EXPECT_TRUE(is_greedy(request.windows));
  EXPECT_FALSE(is_greedy({{wide()}, {narrow()}, {kernels::full_attention()}})) << "the check can fail";
  const int64_t tile = ops->device().row_tile();
  const auto bytes = [&](int64_t rows) {
    return ops->device().kv_bytes((rows + tile - 1) / tile * tile, model.config.heads);
  };
  EXPECT_EQ(report.texts[0].cache_bytes, bytes(22) + bytes(150) + bytes(kTokens + 39));
}

}  // namespace
}  // namespace winnow::engine
