// Rotary frequencies and angles against Transformers' (golden/rope.json, made by golden/make_rope.py).

#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/config.h"

namespace winnow::model {
namespace {

using Json = nlohmann::json;

Json golden() {
  std::ifstream file(std::string(WINNOW_TESTS_DIR) + "/golden/rope.json");
  return Json::parse(file);
}

// The configuration of a case, read as config.json would be.
RopeConfig rope_of(const Json& parameters) {
  const Json json = {{"model_type", "llama"}, {"max_position_embeddings", 131072}, {"rope_parameters", parameters}};
  return parse_config(json.dump(), "golden").ropes.front();
}

int64_t head_dim_of(const Json& golden_case) { return golden_case.at("config").at("head_dim").get<int64_t>(); }

TEST(Rope, FrequenciesAreTransformersWithinOneUnitInTheLastPlace) {
  int n_values = 0;
  int n_same = 0;
  const Json all = golden();
  for (const Json& each : all.at("cases")) {
    const std::vector<float> ours = inverse_frequencies(rope_of(each.at("config")), head_dim_of(each));
    const auto theirs = each.at("inverse_frequencies").get<std::vector<float>>();
    ASSERT_EQ(ours.size(), theirs.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      // PyTorch's float32 power is within one unit of the last place, and llama3 adds roundings of its own to it.
      EXPECT_NEAR(ours[i], theirs[i], std::abs(theirs[i]) * 0x1p-22F) << each.at("config") << " " << i;
      n_same += ours[i] == theirs[i] ? 1 : 0;
      ++n_values;
    }
  }
  // Nearly all are the same bits: the steps are the same, only the power's last bit may differ.
  EXPECT_GE(n_same, n_values * 9 / 10) << n_values;
}

TEST(Rope, TableIsTheCosineOfTheFloat32Angle) {
  const Json all = golden();
  const auto positions = all.at("positions").get<std::vector<int64_t>>();
  for (const Json& each : all.at("cases")) {
    const int64_t head_dim = head_dim_of(each);
    const int64_t half = head_dim / 2;
    const RopeConfig rope = rope_of(each.at("config"));
    const std::vector<float> frequencies = inverse_frequencies(rope, head_dim);
    const std::vector<float> table = rope_table(rope, head_dim, positions.back() + 1);
    const auto their_frequencies = each.at("inverse_frequencies").get<std::vector<float>>();
    const auto cosines = each.at("cos").get<std::vector<float>>();
    const auto sines = each.at("sin").get<std::vector<float>>();
    for (std::size_t p = 0; p < positions.size(); ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (frequencies[at] != their_frequencies[at]) continue;
        const std::size_t golden_at = p * static_cast<std::size_t>(half) + at;
        const float* row = table.data() + positions[p] * head_dim;
        EXPECT_NEAR(row[i], cosines[golden_at], 0x1p-23F) << positions[p] << " " << i;
        EXPECT_NEAR(row[half + i], sines[golden_at], 0x1p-23F) << positions[p] << " " << i;
      }
    }
  }
}

TEST(Rope, PositionZeroIsNoRotation) {
  const std::vector<float> table = rope_table(RopeConfig{}, 4, 1);
  EXPECT_EQ(table, (std::vector<float>{1.0F, 1.0F, 0.0F, 0.0F}));
}

TEST(Rope, LinearDividesEveryFrequency) {
  RopeConfig rope;
  const std::vector<float> plain = inverse_frequencies(rope, 8);
  rope.type = RopeConfig::Type::kLinear;
  rope.factor = 4.0;
  const std::vector<float> scaled = inverse_frequencies(rope, 8);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(scaled[i], plain[i] / 4.0F);
}

TEST(Rope, Llama3KeepsShortWavesAndStretchesLongOnes) {
  RopeConfig rope;
  rope.theta = 5e5;
  const std::vector<float> plain = inverse_frequencies(rope, 128);
  rope.type = RopeConfig::Type::kLlama3;
  rope.factor = 8.0;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.original_max_position = 8192;
  const std::vector<float> scaled = inverse_frequencies(rope, 128);
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_EQ(scaled.back(), plain.back() / 8.0F);
  int n_between = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8.0F);
    n_between += scaled[i] != plain[i] && scaled[i] != plain[i] / 8.0F ? 1 : 0;
  }
  EXPECT_GT(n_between, 0);
}

}  // namespace
}  // namespace winnow::model
