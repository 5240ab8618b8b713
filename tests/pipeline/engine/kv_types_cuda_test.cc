// Plans with types of keys and values on the GPU: the figures of one do not depend on the base beside which it is
// measured, which a search changes from round to round; texts from packed caches. Skipped where there is no GPU.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "model/weights.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/generation.h"
#include "tests/small_model.h"

namespace winnow::engine {
namespace {

constexpr int64_t kLayers = 4;
constexpr int64_t kTokens = 900;
constexpr int64_t kAnswerStart = 860;
constexpr int64_t kFirstRow = kAnswerStart - 250;  // inside a tile

LayerWindow setting(int64_t keys, KvType type) {
  LayerWindow layer{.window = kernels::full_attention()};
  if (keys > 0) layer.window = {.keys = keys, .sinks = 2, .first_row = kFirstRow};
  if (type == KvType::kStored) return layer;
  layer.kv = type;
  layer.kv_first_row = kFirstRow;
  return layer;
}

// Full attention, mixed plans, and every change of one layer of the first of these.
std::vector<LayerWindows> plans() {
  const LayerWindows mixed = {setting(40, KvType::kFp8), setting(0, KvType::kInt8), setting(200, KvType::kStored),
                              setting(0, KvType::kInt4)};
  std::vector<LayerWindows> plans = {LayerWindows(kLayers, {kernels::full_attention()}), mixed,
                                     LayerWindows(kLayers, setting(0, KvType::kFp8)),
                                     LayerWindows(kLayers, setting(40, KvType::kInt4))};
  for (std::size_t layer = 0; layer < mixed.size(); ++layer) {
    for (const int64_t keys : {int64_t{0}, int64_t{200}}) {
      for (const KvType type : kKvTypes) {
        plans.push_back(mixed);
        plans.back()[layer] = setting(keys, type);
      }
    }
  }
  return plans;
}

TEST(KvTypesCuda, FiguresDoNotDependOnTheBase) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const Model model({.n_layers = kLayers, .hidden = 256, .head_dim = 64, .seed = 7});
  const auto tokens = random_tokens(kTokens, 128, 3);
  const std::vector<LayerWindows> all = plans();
  using Attention = cuda::CudaOptions::Attention;
  for (const Attention attention : {Attention::kAuto, Attention::kBuiltin}) {
    const auto ops = cuda::make_cuda_backend({.device = 0, .attention = attention});
    model::ModelWeights weights(model.config, *model.checkpoint, *ops);
    SweepRequest request{.tokens = tokens, .answer_start = kAnswerStart, .base = {}, .variants = {}, .per_token = true};
    std::vector<Score> alone;
    for (const LayerWindows& plan : all) {
      request.base = plan;
      alone.push_back(sweep(*ops, model.config, weights, request, {}).base);
    }
    EXPECT_NE(alone[1].nll_nats, alone[0].nll_nats) << "the check can fail";
    request.variants = all;
    for (const int64_t prefix_rows :
         {int64_t{0}, cached_rows(kTokens, {.keys = 1, .first_row = kFirstRow}, ops->device().row_tile())}) {
      PrefixCache cache(*ops, model.config, weights);
      request.prefix_rows = prefix_rows;
      for (std::size_t base = 0; base < 4; ++base) {
        request.base = all[base];
        cache.provide(0, CachedPrefix::Place::kBackend, request, {});
        const SweepResult found = sweep(*ops, model.config, weights, request, {});
        const std::string what = "attention " + std::to_string(static_cast<int>(attention)) + ", prefix of " +
                                 std::to_string(prefix_rows) + " rows, base " + std::to_string(base);
        expect_same(found.base, alone[base], what);
        for (std::size_t v = 0; v < all.size(); ++v) {
          expect_same(found.variants[v], alone[v], what + ", plan " + std::to_string(v));
        }
      }
      request.prefix = nullptr;
    }
  }
}

// Texts from packed caches, of prompts that take one chunk and more, do not depend on their company and follow the
// sweep, and the caches take what their types say.
TEST(KvTypesCuda, GeneratesFromPackedCaches) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const Model model({.n_layers = kLayers, .hidden = 256, .head_dim = 64, .seed = 7});
  constexpr int64_t kNew = 24;
  const auto of_window = [](int64_t keys, int64_t sinks, KvType type) {
    return LayerWindow{.window = {.keys = keys, .sinks = sinks}, .kv = type};
  };
  const auto all = [](KvType type) { return LayerWindow{.window = kernels::full_attention(), .kv = type}; };
  const std::vector<LayerWindows> plans = {
      {all(KvType::kInt8), all(KvType::kFp8), all(KvType::kInt4), all(KvType::kStored)},
      {of_window(96, 4, KvType::kInt4), all(KvType::kInt8), of_window(200, 0, KvType::kFp8),
       of_window(70, 2, KvType::kInt8)},
      LayerWindows(kLayers, all(KvType::kStored))};
  const int64_t lengths[] = {9000, 300, 700, 128, 1000, 129, 33};
  for (const auto attention : {cuda::CudaOptions::Attention::kAuto, cuda::CudaOptions::Attention::kBuiltin}) {
    const auto ops = cuda::make_cuda_backend({.device = 0, .attention = attention});
    model::ModelWeights weights(model.config, *model.checkpoint, *ops);
    std::vector<std::vector<int32_t>> prompts;
    std::vector<GenerationRequest> requests;
    for (const int64_t n : lengths) prompts.push_back(random_tokens(n, 128, static_cast<uint32_t>(n)));
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      for (const LayerWindows& plan : plans) requests.push_back({prompts[i], plan, kNew, std::to_string(i)});
    }
    generate(*ops, model.config, weights, std::span(requests).first(1), {}, {});  // what operations keep for themselves
    const int64_t before = ops->device().allocated_bytes();
    ops->device().reset_peak();
    const GenerationReport together = generate(*ops, model.config, weights, requests, {}, {});
    EXPECT_LE(ops->device().peak_allocated_bytes() - before, predict_generation_bytes(model.config, *ops, requests));
    int64_t n_hits = 0;
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const Generated& text = together.texts[r];
      ASSERT_EQ(text.tokens.size(), static_cast<std::size_t>(kNew));
      const GenerationReport alone = generate(*ops, model.config, weights, std::span(&requests[r], 1), {}, {});
      EXPECT_EQ(alone.texts[0].tokens, text.tokens) << "request " << r;
      std::vector<int32_t> tokens(requests[r].prompt.begin(), requests[r].prompt.end());
      tokens.insert(tokens.end(), text.tokens.begin(), text.tokens.end());
      const SweepRequest pass{.tokens = tokens,
                              .answer_start = static_cast<int64_t>(requests[r].prompt.size()),
                              .base = requests[r].windows,
                              .variants = {}};
      n_hits += std::lround(sweep(*ops, model.config, weights, pass, {}).base.token_accuracy * kNew);
      if (r % 3 != 0) continue;
      // Halves of bfloat16, a quarter with scales, and all of it.
      const int64_t plain = together.texts[r + 2].cache_bytes / kLayers;
      EXPECT_EQ(text.cache_bytes, plain * 68 / 128 + plain / 2 + plain * 36 / 128 + plain);
    }
    // Attention of single rows adds up in another order: bfloat16 may decide a close race otherwise.
    EXPECT_GE(n_hits, static_cast<int64_t>(requests.size()) * kNew * 95 / 100);
  }
}

}  // namespace
}  // namespace winnow::engine
