// The sweep that a round asks for: its base may be any plan, and its prefix holds rows that no plan of any round
// changes.
#include <gtest/gtest.h>

#include <vector>

#include "pipeline/run/inputs.h"

namespace winnow::run {
namespace {

constexpr int64_t kTokens = 400;
constexpr int64_t kAnswerStart = 300;
constexpr int64_t kTail = 150;
constexpr int64_t kTile = 64;

// One example; a window of 260 keys changes rows from 260 on alone, a type those from 150 on.
Inputs some_inputs() {
  Inputs inputs;
  inputs.settings.window_keys = 260;
  inputs.settings.tail_rows = kTail;
  inputs.settings.base = engine::Pattern(3, false);
  DataSet& data = inputs.data_sets.emplace_back();
  data.corpus.tokens.assign(kTokens, 1);
  data.corpus.offsets = {0, kTokens};
  data.corpus.answer_start = {kAnswerStart};
  data.n_examples = data.n_wanted = 1;
  inputs.prefixes.place = {engine::CachedPrefix::Place::kBackend};
  inputs.row_tile = kTile;
  return inputs;
}

engine::SweepRequest request_of(const Inputs& inputs) {
  return inputs.request({.data_set = 0, .example = 0, .base = true, .variants = {}}, {}, false);
}

TEST(Inputs, ABaseMayHaveTypes) {
  Inputs inputs = some_inputs();
  inputs.settings.base = {true, false, false};
  inputs.settings.base_keys = {270, 0, 0};
  inputs.settings.base_kv = {KvType::kFp8, KvType::kInt4, KvType::kStored};
  const engine::LayerWindows base = request_of(inputs).base;
  ASSERT_EQ(base.size(), 3U);
  EXPECT_EQ(base[0].window.keys, 270);
  EXPECT_EQ(base[1].window, kernels::full_attention());
  for (std::size_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(base[layer].kv, inputs.settings.base_kv[layer]);
    EXPECT_EQ(base[layer].kv_first_row, layer < 2 ? kAnswerStart - kTail : 0);
  }
}

TEST(Inputs, APrefixEndsWhereATypeOfALaterRoundBegins) {
  Inputs inputs = some_inputs();
  EXPECT_EQ(request_of(inputs).prefix_rows, 256);
  inputs.kv_types = {KvType::kInt8};
  EXPECT_TRUE(inputs.variants.empty());
  EXPECT_EQ(request_of(inputs).prefix_rows, 128);
  inputs.settings.tail_rows.reset();
  EXPECT_EQ(request_of(inputs).prefix_rows, 0);
}

}  // namespace
}  // namespace winnow::run
