// Layers with a window in some of their key heads: every head alone, all together, beside whole layers.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/layer_windows.h"
#include "pipeline/engine/reference.h"
#include "pipeline/engine/sweep_plan.h"
#include "tests/small_model.h"
#include "tests/tolerances.h"

namespace winnow::engine {
namespace {

constexpr int64_t kTokens = 300;
constexpr int64_t kAnswerStart = 270;
constexpr std::size_t kLayers = 3;
constexpr std::size_t kHeads = 4;

kernels::Window window(int64_t first_row) { return {20, 2, first_row, kernels::kNoLimit}; }

LayerWindow of_heads(const kernels::Window& seen, const std::vector<bool>& heads) { return with_heads({seen}, heads); }

std::vector<bool> one_head(std::size_t head) {
  std::vector<bool> heads(kHeads, false);
  heads[head] = true;
  return heads;
}

// Every layer alone, then every head of every layer alone, layer by layer.
SweepRequest each_head(const std::vector<int32_t>& tokens, const kernels::Window& seen) {
  SweepRequest request = drop_one(tokens, kAnswerStart, seen, kLayers);
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    for (std::size_t head = 0; head < kHeads; ++head) {
      request.variants.push_back(request.base);
      request.variants.back()[layer] = of_heads(seen, one_head(head));
    }
  }
  return request;
}

model::RandomCheckpoint shape(const char* family = "qwen3") {
  return {.model_type = family, .n_layers = kLayers, .n_heads = 8, .n_kv_heads = kHeads, .head_dim = 16, .seed = 7};
}

TEST(HeadWindows, HaveOneForm) {
  const LayerWindow whole{window(0)};
  EXPECT_EQ(with_heads(whole, std::vector<bool>(kHeads, true)), whole);
  EXPECT_EQ(with_heads(whole, std::vector<bool>(kHeads, false)), LayerWindow{kernels::full_attention()});
  const LayerWindow part = of_heads(window(0), one_head(2));
  EXPECT_EQ(part.windowed_heads, one_head(2));
  EXPECT_NE(part, whole);
  EXPECT_EQ(fork_layer_of({whole, whole}, {whole, part}), 1);
  EXPECT_EQ(first_different_row({whole, whole}, {whole, part}), 22);
  EXPECT_EQ(settings_of_first_rows({part}, 22), (LayerWindows{{kernels::full_attention()}}));
  EXPECT_EQ(settings_of_first_rows({part}, 23), (LayerWindows{part}));
}

TEST(HeadWindows, EveryHeadEqualsItsOwnPassAndTheReference) {
  const auto tokens = random_tokens(kTokens, 128, 3);
  for (const char* family : {"qwen3", "gpt_oss"}) {  // the second has sink logits
    const Model model(shape(family));
    for (const int64_t first_row : {int64_t{0}, kAnswerStart - 10}) {
      const SweepRequest request = each_head(tokens, window(first_row));
      const SweepResult together = model.run(request);
      for (std::size_t v = 0; v < request.variants.size(); ++v) {
        const std::string what = std::string(family) + ", variant " + std::to_string(v);
        SweepRequest single = request;
        single.variants.clear();
        single.base = request.variants[v];
        expect_same(model.run(single).base, together.variants[v], what);
        single.base = request.base;
        single.variants = {request.variants[v]};
        expect_same(model.run(single, 1).variants[0], together.variants[v], what + " beside its base");
        const double nll = together.variants[v].nll_nats;
        EXPECT_NE(nll, together.base.nll_nats) << what;
        if (v % 5 != 3) continue;  // the reference takes its time: a head of each layer
        const Score exact = reference_score(model.config, *model.checkpoint, tokens, kAnswerStart, request.variants[v]);
        EXPECT_LE(std::abs(nll - exact.nll_nats), kNllTolerance * (1.0 + std::abs(exact.nll_nats))) << what;
      }
    }
  }
}

TEST(HeadWindows, AllHeadsOfALayerAreTheLayer) {
  const Model model(shape());
  const auto tokens = random_tokens(kTokens, 128, 3);
  SweepRequest request = drop_one(tokens, kAnswerStart, window(kAnswerStart - 10), kLayers);
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    // Not in its one form: heads by heads through attention.
    request.variants.push_back(request.variants[layer]);
    request.variants.back()[layer].windowed_heads.assign(kHeads, true);
  }
  const SweepResult result = model.run(request);
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    expect_same(result.variants[kLayers + layer], result.variants[layer], std::to_string(layer));
  }
}

TEST(HeadWindows, MixInEveryLayerOfABaseAndOfAVariant) {
  const Model model(shape());
  const auto tokens = random_tokens(kTokens, 128, 5);
  const LayerWindows base = {
      of_heads(window(0), {true, false, true, false}), {window(0)}, of_heads(window(0), {false, true, true, true})};
  SweepRequest request = drop_one(tokens, kAnswerStart, window(0), kLayers);
  request.variants = {base, base};
  request.variants[1][2] = of_heads(window(kAnswerStart), {true, true, false, false});
  const SweepResult beside_full = model.run(request);
  for (std::size_t v = 0; v < request.variants.size(); ++v) {
    const Score exact = reference_score(model.config, *model.checkpoint, tokens, kAnswerStart, request.variants[v]);
    EXPECT_LE(std::abs(beside_full.variants[v].nll_nats - exact.nll_nats),
              kNllTolerance * (1.0 + std::abs(exact.nll_nats)));
  }
  SweepRequest beside_mixed = request;
  beside_mixed.base = base;
  beside_mixed.variants = {request.variants[1]};
  const SweepResult other = model.run(beside_mixed);
  expect_same(other.base, beside_full.variants[0], "as a base");
  expect_same(other.variants[0], beside_full.variants[1], "as a variant of it");
}

TEST(HeadWindows, ReadAPrefix) {
  const Model model(shape());
  const auto tokens = random_tokens(kTokens, 128, 3);
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  SweepRequest request = each_head(tokens, window(kAnswerStart - 100));
  const SweepResult whole = sweep(*ops, model.config, weights, request, {});
  request.prefix_rows = cached_rows(kTokens, window(kAnswerStart - 100), ops->device().row_tile());
  ASSERT_GT(request.prefix_rows, 0);
  PrefixCache cache(*ops, model.config, weights);
  cache.provide(0, CachedPrefix::Place::kBackend, request, {});
  const SweepResult tail = sweep(*ops, model.config, weights, request, {});
  for (std::size_t v = 0; v < whole.variants.size(); ++v) {
    expect_same(tail.variants[v], whole.variants[v], "variant " + std::to_string(v));
  }
}

TEST(HeadWindows, CostWhatTheirHeadsSee) {
  const Model model(shape());
  const auto tokens = random_tokens(kTokens, 128, 3);
  const auto pairs = [&](const LayerWindow& setting) {
    SweepRequest request = drop_one(tokens, kAnswerStart, window(0), kLayers);
    request.variants = {request.base};
    request.variants[0][kLayers - 1] = setting;
    return plan_sweep(model.config, request, 64).attention_pairs;
  };
  SweepRequest alone = drop_one(tokens, kAnswerStart, window(0), kLayers);
  alone.variants.clear();
  const int64_t base = plan_sweep(model.config, alone, 64).attention_pairs;
  const int64_t full = base / static_cast<int64_t>(kLayers);
  const int64_t windowed = pairs({window(0)}) - base;
  ASSERT_LT(windowed, full);
  EXPECT_EQ(pairs(of_heads(window(0), one_head(1))) - base, (windowed + 3 * full) / 4);
}

TEST(HeadWindows, AreRefusedWhereTheyDoNotFit) {
  const Model model(shape());
  const auto tokens = random_tokens(kTokens, 128, 3);
  SweepRequest request = drop_one(tokens, kAnswerStart, window(0), kLayers);
  request.variants[0][0].windowed_heads = {true, false};
  EXPECT_THROW(model.run(request), Error);
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const GenerationRequest text{.prompt = tokens,
                               .windows = LayerWindows(kLayers, of_heads(window(0), one_head(0))),
                               .max_new_tokens = 2,
                               .name = "heads"};
  EXPECT_THROW(generate(*ops, model.config, weights, std::span(&text, 1), {}, {}), Error);
}

}  // namespace
}  // namespace winnow::engine
