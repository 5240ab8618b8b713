// Layers that keep their keys and values in narrower types: in the base, among the variants, in the tail, in prefixes
// and in caches.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/cpu.h"
#include "pipeline/engine/cached_prefix.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/reference.h"
#include "tests/small_model.h"

namespace winnow::engine {
namespace {

constexpr int64_t kTokens = 400;
constexpr int64_t kAnswerStart = 370;
constexpr KvType kNarrow[] = {KvType::kFp8, KvType::kInt8, KvType::kInt4};

kernels::Window narrow(int64_t first_row = 0) { return {20, 2, first_row, kernels::kNoLimit}; }

LayerWindow with_type(KvType type, int64_t first_row = 0, const kernels::Window& window = kernels::full_attention()) {
  return {.window = window, .kv = type, .kv_first_row = first_row};
}

// A base with full attention, and each layer with each type alone, with a window and without.
SweepRequest each_layer_in_each_type(const std::vector<int32_t>& tokens, int64_t n_layers, int64_t first_row) {
  SweepRequest request = drop_one(tokens, kAnswerStart, narrow(first_row), n_layers);
  for (const KvType type : kNarrow) {
    for (const kernels::Window& window : {kernels::full_attention(), narrow(first_row)}) {
      for (std::size_t layer = 0; layer < request.base.size(); ++layer) {
        request.variants.push_back(request.base);
        request.variants.back()[layer] = with_type(type, first_row, window);
      }
    }
  }
  return request;
}

class FirstRows : public ::testing::TestWithParam<int64_t> {};

// All rows; the tail from the first row of a tile on, from one inside it, from the answer on, from one within it.
TEST_P(FirstRows, EachLayerInEachTypeEqualsItsOwnPass) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(kTokens, 128, 3);
  expect_equals_separate_passes(model, each_layer_in_each_type(tokens, 4, GetParam()),
                                "rows from " + std::to_string(GetParam()));
}

TEST_P(FirstRows, ABaseOfSeveralTypesEqualsSeparatePasses) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto tokens = random_tokens(kTokens, 128, 3);
  const int64_t first = GetParam();
  SweepRequest request = drop_one(tokens, kAnswerStart, {}, 4);
  request.base = {with_type(KvType::kInt4, first, narrow(first)),
                  with_type(KvType::kFp8, first),
                  {narrow(first)},
                  with_type(KvType::kInt8, first)};
  request.variants.clear();
  for (std::size_t layer = 0; layer < 4; ++layer) {
    for (const LayerWindow& setting : {LayerWindow{kernels::full_attention()}, with_type(KvType::kInt4, first),
                                       with_type(KvType::kFp8, first, narrow(first))}) {
      request.variants.push_back(request.base);
      request.variants.back()[layer] = setting;
    }
  }
  request.variants.push_back(LayerWindows(4, {kernels::full_attention()}));
  request.variants.push_back(LayerWindows(4, with_type(KvType::kFp8, first)));
  expect_equals_separate_passes(model, request, "a base of several types");
}

INSTANTIATE_TEST_SUITE_P(Rows, FirstRows, ::testing::Values(0, 320, 333, 370, 383, 399));

TEST(KvTypes, TheNarrowerTheTypeTheMoreItCosts) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto tokens = random_tokens(kTokens, 128, 3);
  SweepRequest request = drop_one(tokens, kAnswerStart, {}, 3);
  request.with_kl = true;
  request.variants = {LayerWindows(3, with_type(KvType::kInt8)), LayerWindows(3, with_type(KvType::kFp8)),
                      LayerWindows(3, with_type(KvType::kInt4))};
  const SweepResult result = model.run(request);
  EXPECT_GT(result.variants[0].kl_nats, 1e-7);
  EXPECT_GT(result.variants[1].kl_nats, result.variants[0].kl_nats);
  EXPECT_GT(result.variants[2].kl_nats, result.variants[1].kl_nats);
}

// A number next to the border of two codes may fall to either side, in float32 and in float64: one of 4 bits weighs
// more. What rounding does at all is larger by far.
TEST(KvTypes, AgreeWithTheReference) {
  Model model({.n_layers = 3, .seed = 5});
  const auto tokens = random_tokens(kTokens, 128, 3);
  model.config.kv_scales = {{0.02F, 0.01F}, {0.5F, 0.3F}, {1.0F, 1.0F}};
  for (const auto& [type, tolerance] :
       std::map<KvType, double>{{KvType::kInt8, 3e-5}, {KvType::kFp8, 3e-4}, {KvType::kInt4, 3e-4}}) {
    for (const int64_t first : {0, 345}) {
      SweepRequest request = drop_one(tokens, kAnswerStart, {}, 3);
      request.variants.clear();
      const Score plain = model.run(request).base;
      request.base = {with_type(type, first), with_type(type, first, narrow(first)), with_type(type, first)};
      const Score found = model.run(request).base;
      const Score exact = reference_score(model.config, *model.checkpoint, tokens, kAnswerStart, request.base);
      EXPECT_NEAR(found.nll_nats, exact.nll_nats, tolerance) << kv_type_name(type) << " from " << first;
      EXPECT_GT(std::abs(found.nll_nats - plain.nll_nats), 10.0 * tolerance) << kv_type_name(type);
    }
  }
}

// With prefixes where the backend has them and on the host, several requests together; and what memory that takes.
TEST(KvTypes, APrefixIsReadRoundedByWhoeverHasAType) {
  const Model model({.n_layers = 4, .seed = 7});
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const int64_t first = kAnswerStart - 37;
  const auto tokens = random_tokens(kTokens, 128, 3);
  const auto other_tokens = random_tokens(kTokens + 90, 128, 4);
  std::vector<SweepRequest> requests = {each_layer_in_each_type(tokens, 4, first),
                                        each_layer_in_each_type(other_tokens, 4, first)};
  requests[1].base[2] = with_type(KvType::kInt4, first);
  const std::vector<SweepResult> whole = sweep(*ops, model.config, weights, requests, {});
  PrefixCache cache(*ops, model.config, weights);
  const CachedPrefix::Place places[] = {CachedPrefix::Place::kBackend, CachedPrefix::Place::kHost};
  for (std::size_t r = 0; r < 2; ++r) {
    // As narrow as can be: the rows of a type begin with the tail.
    requests[r].prefix_rows = cached_rows(static_cast<int64_t>(requests[r].tokens.size()),
                                          {1, 0, first, kernels::kNoLimit}, ops->device().row_tile());
    ASSERT_GT(requests[r].prefix_rows, 0);
    cache.provide(static_cast<int64_t>(r), places[r], requests[r], {});
    EXPECT_EQ(requests[r].prefix->windows(), LayerWindows(4, {kernels::full_attention()}));
  }
  ops->device().reset_peak();
  const int64_t before = ops->device().allocated_bytes();
  const std::vector<SweepResult> tails = sweep(*ops, model.config, weights, requests, {});
  EXPECT_EQ(ops->device().peak_allocated_bytes() - before, predict_sweep_bytes(model.config, *ops, requests));
  for (std::size_t r = 0; r < 2; ++r) {
    expect_same(tails[r].base, whole[r].base, "base");
    for (std::size_t v = 0; v < whole[r].variants.size(); ++v) {
      expect_same(tails[r].variants[v], whole[r].variants[v], "variant " + std::to_string(v));
    }
  }
  requests[0].variants[0][0] = with_type(KvType::kFp8);
  EXPECT_THROW(sweep(*ops, model.config, weights, requests, {}), Error) << "its rows reach into the prefix";
}

// Each text is what the sweep with the same types would choose, and some are not what one without types would.
TEST(KvTypes, GeneratesFromPackedCaches) {
  const Model model({.n_layers = 3, .seed = 5});
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const LayerWindows mixed = {with_type(KvType::kInt4, 0, narrow()), with_type(KvType::kInt4), with_type(KvType::kFp8)};
  const LayerWindows plain = {{narrow()}, {kernels::full_attention()}, {kernels::full_attention()}};
  std::vector<std::vector<int32_t>> prompts;
  for (uint32_t seed = 0; seed < 12; ++seed) prompts.push_back(random_tokens(150 + 7 * seed, 128, seed));
  std::vector<GenerationRequest> requests;
  for (const auto& prompt : prompts) {
    requests.push_back({.prompt = prompt, .windows = mixed, .max_new_tokens = 40, .name = "types"});
  }
  requests.push_back({.prompt = prompts[0], .windows = plain, .max_new_tokens = 40, .name = "none"});
  const GenerationReport report = generate(*ops, model.config, weights, requests, {}, {});
  const auto is_greedy = [&](std::size_t text, const LayerWindows& windows) {
    std::vector<int32_t> all(requests[text].prompt.begin(), requests[text].prompt.end());
    const auto start = static_cast<int64_t>(all.size());
    all.insert(all.end(), report.texts[text].tokens.begin(), report.texts[text].tokens.end());
    const SweepRequest pass{.tokens = all, .answer_start = start, .base = windows, .variants = {}};
    return sweep(*ops, model.config, weights, pass, {}).base.exact_match;
  };
  int n_told_apart = 0;
  for (std::size_t text = 0; text < prompts.size(); ++text) {
    EXPECT_TRUE(is_greedy(text, mixed)) << text;
    n_told_apart += is_greedy(text, plain) ? 0 : 1;
  }
  EXPECT_GT(n_told_apart, 0) << "the check can fail";
  EXPECT_TRUE(is_greedy(prompts.size(), plain)) << "beside others with types";
  // What the slots take in their types: padded to tiles, with the scales.
  const int64_t tile = ops->device().row_tile();
  const auto padded = [&](int64_t rows) { return (rows + tile - 1) / tile * tile; };
  const kernels::HeadShape& heads = model.config.heads;
  const int64_t of_int4 = 2 * heads.n_kv_heads * (heads.head_dim / 2 + 4);
  const int64_t of_fp8 = 2 * heads.n_kv_heads * heads.head_dim;
  EXPECT_EQ(report.texts[0].cache_bytes, (padded(22) + padded(189)) * of_int4 + padded(189) * of_fp8);
  requests[0].windows[0].kv_first_row = 150;
  EXPECT_THROW(generate(*ops, model.config, weights, requests, {}, {}), Error);
}

// Prompts of several chunks, whose rows a ring forgets before the text begins; caches with and without room for all.
TEST(KvTypes, EveryTokenOfALongPromptIsTheArgmaxOfTheSweep) {
  const Model model({.n_layers = 4, .head_dim = 40, .seed = 5});
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  const int64_t n_prompt = 4 * ops->device().chunk_rows() + 37;
  const auto prompt = random_tokens(n_prompt, 128, 11);
  const auto of_window = [](KvType type, int64_t keys, int64_t sinks, int64_t first_row = 0) {
    return with_type(type, 0, {keys, sinks, first_row, kernels::kNoLimit});
  };
  const std::map<std::string, LayerWindows> plans = {
      {"types alone",
       {with_type(KvType::kInt4), with_type(KvType::kInt8), with_type(KvType::kFp8), with_type(KvType::kInt4)}},
      {"rings",
       {of_window(KvType::kInt4, 33, 0), of_window(KvType::kInt8, 70, 90), of_window(KvType::kFp8, 1, 0),
        of_window(KvType::kStored, 50, 3)}},
      {"rings of the tail",
       {of_window(KvType::kFp8, 50, 3, n_prompt - 40), of_window(KvType::kInt4, 64, 0, n_prompt),
        with_type(KvType::kInt8), of_window(KvType::kInt4, 20, 64)}},
      {"a ring that is filled by the text", {of_window(KvType::kInt4, n_prompt + 5, 2), {}, {}, {}}},
  };
  for (const auto& [name, plan] : plans) {
    const GenerationRequest request{.prompt = prompt, .windows = plan, .max_new_tokens = 30, .name = name};
    const std::vector<int32_t> text =
        generate(*ops, model.config, weights, std::span(&request, 1), {}, {}).texts[0].tokens;
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), text.begin(), text.end());
    SweepRequest pass{.tokens = all, .answer_start = n_prompt, .base = plan, .variants = {}};
    EXPECT_TRUE(sweep(*ops, model.config, weights, pass, {}).base.exact_match) << name;
    all.back() = (all.back() + 1) % 128;
    EXPECT_FALSE(sweep(*ops, model.config, weights, pass, {}).base.exact_match) << name << ": the check can fail";
  }
}

// Memory of the backend while the last tokens are decoded, and what the report says of the caches.
struct DecodingMemory {
  int64_t bytes = 0;
  int64_t cache_bytes = 0;
  int64_t peak_bytes = 0;
};

DecodingMemory memory_of(const Model& model, std::span<const GenerationRequest> requests) {
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(model.config, *model.checkpoint, *ops);
  ops->device().reset_peak();
  const int64_t before = ops->device().allocated_bytes();
  DecodingMemory memory;
  const GenerationReport report = generate(*ops, model.config, weights, requests, {}, [&] {
    memory.bytes = ops->device().allocated_bytes() - before;
    return false;
  });
  for (const Generated& text : report.texts) memory.cache_bytes += text.cache_bytes;
  memory.peak_bytes = ops->device().peak_allocated_bytes() - before;
  EXPECT_LE(memory.peak_bytes, predict_generation_bytes(model.config, *ops, requests));
  EXPECT_GE(memory.peak_bytes, predict_generation_bytes(model.config, *ops, requests) / 2);
  return memory;
}

TEST(KvTypes, ACacheTakesWhatItsTypeSays) {
  const Model model({.n_layers = 8, .n_kv_heads = 2, .head_dim = 64, .seed = 5});
  const kernels::HeadShape& heads = model.config.heads;
  const auto first = random_tokens(700, 128, 11);
  const auto second = random_tokens(300, 128, 12);
  const auto requests_of = [&](const LayerWindows& windows) {
    return std::vector<GenerationRequest>{{first, windows, 20, "first"}, {second, windows, 20, "second"}};
  };
  const int64_t n_slots = (704 + 64) + 320;  // 719 and 319 rows, in tiles of 64
  const DecodingMemory plain = memory_of(model, requests_of(LayerWindows(8, {kernels::full_attention()})));
  EXPECT_EQ(plain.cache_bytes, 8 * n_slots * 2 * heads.kv_dim() * 4);
  // What attention reads of one layer is there unpacked.
  const int64_t unpacked = n_slots * 2 * heads.kv_dim() * 4;
  for (const auto& [type, share] :
       std::map<KvType, double>{{KvType::kFp8, 64.0 / 256}, {KvType::kInt8, 68.0 / 256}, {KvType::kInt4, 36.0 / 256}}) {
    const DecodingMemory packed = memory_of(model, requests_of(LayerWindows(8, with_type(type))));
    EXPECT_EQ(static_cast<double>(packed.cache_bytes), static_cast<double>(plain.cache_bytes) * share);
    EXPECT_EQ(plain.bytes - packed.bytes, plain.cache_bytes - packed.cache_bytes - unpacked)
        << kv_type_name(type) << ": the report says what the backend measures";
    LayerWindows one(8, {kernels::full_attention()});
    one[3] = with_type(type);
    const DecodingMemory mixed = memory_of(model, requests_of(one));
    EXPECT_EQ(plain.cache_bytes - mixed.cache_bytes, (plain.cache_bytes - packed.cache_bytes) / 8);
  }
}

TEST(KvTypes, SettingsSayWhichRowsDiffer) {
  const LayerWindows base(2, {kernels::full_attention()});
  LayerWindows variant = base;
  variant[1] = with_type(KvType::kInt8, 77);
  EXPECT_EQ(fork_layer_of(base, variant), 1);
  EXPECT_EQ(first_different_row(base, variant), 77);
  EXPECT_EQ(settings_of_first_rows(variant, 77), base);
  EXPECT_EQ(settings_of_first_rows(variant, 78), variant);
  LayerWindows other = base;
  other[1] = with_type(KvType::kFp8, 77);
  EXPECT_EQ(first_different_row(variant, other), 77);
  EXPECT_GE(first_different_row(variant, variant), kernels::kNoLimit);
}

}  // namespace
}  // namespace winnow::engine
