// Which modules a list of a quantization_config names, by the rule of each kind of checkpoint.

#include "model/quantization/modules.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/quantization/scheme.h"
#include "tests/model/model_files.h"

namespace winnow::quantization {
namespace {

ModuleList list_of(const std::vector<std::string>& entries, ModuleRule rule) {
  const nlohmann::json object = {{"list", entries}};
  return ModuleList(ConfigFields(object, "config.json"), "list", rule);
}

TEST(ModuleList, TransformersMatchesBeginningsAtDotsAndEnds) {
  const ModuleList list = list_of({"model.layers.1", "lm_head", "model.layers.*.mlp.gate"}, ModuleRule::kPrefix);
  EXPECT_TRUE(list.matches("model.layers.1"));
  EXPECT_TRUE(list.matches("model.layers.1.self_attn.q_proj"));
  EXPECT_FALSE(list.matches("model.layers.11.self_attn.q_proj"));
  EXPECT_TRUE(list.matches("lm_head"));
  EXPECT_TRUE(list.matches("model.lm_head"));
  EXPECT_TRUE(list.matches("model.layers.7.mlp.gate"));
  EXPECT_FALSE(list.matches("model.layers.7.mlp.gate_proj"));
  EXPECT_TRUE(list_of({"model.layers."}, ModuleRule::kPrefix).matches("model.layers.3.mlp"));
  EXPECT_FALSE(list_of({""}, ModuleRule::kPrefix).matches("lm_head"));
}

TEST(ModuleList, CompressedTensorsMatchesNamesAndMarkedExpressions) {
  const ModuleList list = list_of({"lm_head", "re:.*self_attn\\.(q|k)_proj$", "Linear"}, ModuleRule::kExact);
  EXPECT_TRUE(list.matches("lm_head"));
  EXPECT_FALSE(list.matches("model.lm_head"));
  EXPECT_TRUE(list.matches("model.layers.0.self_attn.k_proj"));
  EXPECT_FALSE(list.matches("model.layers.0.self_attn.v_proj"));
  EXPECT_TRUE(list.has_class());
  EXPECT_FALSE(list_of({"re:model"}, ModuleRule::kExact).has_class());
  EXPECT_TRUE(list_of({"re:model"}, ModuleRule::kExact).matches("model.layers.0"));
}

TEST(ModuleList, ModelOptMatchesWildcards) {
  const ModuleList list = list_of({"lm_head", "*layers.0.self_attn*"}, ModuleRule::kWildcards);
  EXPECT_TRUE(list.matches("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(list.matches("model.layers.10.self_attn.q_proj"));
  EXPECT_FALSE(list.matches("lm_head_2"));
  EXPECT_FALSE(list_of({"a.b"}, ModuleRule::kWildcards).matches("a-b"));
}

TEST(Scheme, AGroupOfNamesGoesBeforeOneOfAClass) {
  const auto group = [](const char* target, int bits, int size) {
    return nlohmann::json{
        {"targets", {target}},
        {"weights", {{"num_bits", bits}, {"type", "int"}, {"strategy", "group"}, {"group_size", size}}}};
  };
  const nlohmann::json config = {
      {"quantization_config",
       {{"quant_method", "compressed-tensors"},
        {"format", "pack-quantized"},
        {"ignore", {"lm_head"}},
        {"config_groups", {{"group_0", group("Linear", 8, 128)}, {"group_1", group("re:.*mlp.*", 4, 32)}}}}}};
  const Scheme scheme = parse_scheme(ConfigFields(config, "config.json"));
  EXPECT_EQ(scheme.weights_of("model.layers.0.mlp.up_proj")->description(), "int4 in groups of 32");
  EXPECT_EQ(scheme.weights_of("model.layers.0.self_attn.q_proj")->description(), "int8 in groups of 128");
  EXPECT_EQ(scheme.weights_of("lm_head"), nullptr);
}

TEST(ModuleList, RefusesWhatItDoesNotRead) {
  for (const std::string& text : {std::string("re:("), std::string("re:a{9}"), "re:" + std::string(400, 'a')}) {
    testing::expect_error(ExitCode::kBadData, {"config.json: list", "regular expressions"},
                          [&] { list_of({text}, ModuleRule::kExact); });
  }
}

TEST(ModuleList, NoExpressionTakesExponentialTime) {
  const ModuleList list = list_of({"(a*)*(a*)*(a*)*b"}, ModuleRule::kPrefix);
  EXPECT_FALSE(list.matches(std::string(120, 'a')));
}

}  // namespace
}  // namespace winnow::quantization
