// Experts in config.json, in both dialects, and in checkpoints.
#include "model/experts_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/convert.h"
#include "kernels/cpu/cpu.h"
#include "model/checkpoint_check.h"
#include "model/config.h"
#include "model/families.h"
#include "model/random_checkpoint.h"
#include "model/weights.h"
#include "tests/scratch.h"

namespace winnow::model {
namespace {

using Json = nlohmann::json;
using Layers = std::vector<bool>;

ModelConfig parse(const std::string& model_type, const Json& fields) {
  Json json = {{"model_type", model_type}, {"num_hidden_layers", 4},  {"hidden_size", 64}, {"num_attention_heads", 4},
               {"num_key_value_heads", 2}, {"intermediate_size", 96}, {"vocab_size", 100}};
  json.update(fields);
  return parse_config(json.dump(), "config.json");
}

std::string refusal(const std::string& model_type, const Json& fields) {
  try {
    parse(model_type, fields);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ExpertsConfig, NumbersInBothDialects) {
  for (const char* key : {"num_experts", "num_local_experts"}) {
    const ExpertsConfig experts = parse("qwen3_moe", {{key, 16}, {"num_experts_per_tok", 4}}).experts;
    EXPECT_EQ(experts.router.n_experts, 16) << key;
    EXPECT_EQ(experts.router.top_k, 4);
    EXPECT_EQ(experts.ffn, 768);
    EXPECT_EQ(experts.layers, Layers(4, true));
  }
  EXPECT_EQ(parse("qwen3_moe", Json::object()).experts.router.n_experts, 128);
  EXPECT_EQ(parse("mixtral", Json::object()).experts.ffn, 96);
  EXPECT_EQ(parse("ernie4_5_moe", {{"moe_k", 3}}).experts.router.top_k, 3);
  EXPECT_EQ(parse("ernie4_5_moe", {{"num_experts_per_tok", 5}}).experts.router.top_k, 5);
  EXPECT_EQ(parse("ernie4_5_moe", {{"moe_intermediate_size", 32}}).experts.shared_ffn, 64);
  EXPECT_FALSE(parse("qwen3", Json::object()).experts);
  EXPECT_NE(refusal("qwen3_moe", {{"num_experts", 16}, {"num_local_experts", 8}}).find("num_local_experts"),
            std::string::npos);
}

TEST(ExpertsConfig, RoutersByFamily) {
  const kernels::RouterShape glm =
      parse("glm4_moe", {{"n_group", 4}, {"topk_group", 2}, {"routed_scaling_factor", 2.5}}).experts.router;
  EXPECT_EQ(glm.scores, kernels::RouterScores::kSigmoid);
  EXPECT_EQ(glm.n_groups, 4);
  EXPECT_EQ(glm.top_groups, 2);
  EXPECT_EQ(glm.scale, 2.5F);
  EXPECT_TRUE(glm.normalised);
  EXPECT_FALSE(parse("qwen3_moe", Json::object()).experts.router.normalised);
  EXPECT_TRUE(parse("qwen3_moe", {{"norm_topk_prob", true}}).experts.router.normalised);
  EXPECT_TRUE(parse("mixtral", {{"norm_topk_prob", false}}).experts.router.normalised);
  EXPECT_EQ(parse("minimax_m2", {{"scoring_func", "sigmoid"}}).experts.router.scores, kernels::RouterScores::kSigmoid);
  EXPECT_NE(refusal("minimax_m2", {{"scoring_func", "softmax"}}), "");
}

TEST(ExpertsConfig, LayersByFamily) {
  const auto layers = [](const char* model_type, const Json& fields) {
    return parse(model_type, fields).experts.layers;
  };
  EXPECT_EQ(layers("qwen3_moe", {{"decoder_sparse_step", 2}}), (Layers{false, true, false, true}));
  EXPECT_EQ(layers("qwen3_moe", {{"mlp_only_layers", {0, 3}}}), (Layers{false, true, true, false}));
  EXPECT_EQ(layers("qwen3_moe", {{"mlp_only_layers", {0, 1, 2, 3}}}), Layers());
  EXPECT_EQ(layers("glm4_moe", Json::object()), (Layers{false, true, true, true}));
  EXPECT_EQ(layers("glm4_moe", {{"first_k_dense_replace", 9}}), Layers());
  EXPECT_EQ(layers("ernie4_5_moe", Json::object()), (Layers{false, true, true, true}));
  EXPECT_EQ(
      layers("ernie4_5_moe", {{"moe_layer_start_index", 0}, {"moe_layer_end_index", 2}, {"moe_layer_interval", 2}}),
      (Layers{false, true, false, false}));
}

TEST(ExpertsConfig, RefusesWhatDoesNotFit) {
  EXPECT_NE(refusal("mixtral", {{"num_local_experts", 4}, {"num_experts_per_tok", 5}}).find("num_experts_per_tok"),
            std::string::npos);
  EXPECT_NE(refusal("glm4_moe", {{"n_group", 3}}).find("n_group: expected a divisor of the 128 experts"),
            std::string::npos);
  EXPECT_NE(refusal("glm4_moe", {{"n_group", 2}, {"topk_group", 3}}).find("topk_group"), std::string::npos);
  EXPECT_NE(refusal("glm4_moe", {{"n_group", 128}}).find("n_group"), std::string::npos);
  EXPECT_NE(refusal("qwen3_moe", {{"num_experts", 1 << 20}}).find("at most 4096"), std::string::npos);
  EXPECT_NE(refusal("qwen3_moe", {{"mlp_only_layers", 3}}).find("mlp_only_layers"), std::string::npos);
  EXPECT_NE(refusal("qwen3_moe", {{"mlp_only_layers", {"a"}}}).find("mlp_only_layers"), std::string::npos);
  EXPECT_NE(refusal("ernie4_5_moe", {{"use_bias", true}}).find("use_bias"), std::string::npos);
  EXPECT_NE(refusal("minimax_m2", {{"shared_intermediate_size", 8}}).find("shared_intermediate_size"),
            std::string::npos);
}

TEST(ExpertsConfig, WindowOfQwenIsBehindItsSwitch) {
  EXPECT_FALSE(parse("qwen3_moe", {{"sliding_window", 64}}).native_window);
  EXPECT_FALSE(parse("qwen3_moe", {{"sliding_window", 64}, {"use_sliding_window", false}}).native_window);
  EXPECT_EQ(parse("qwen3_moe", {{"sliding_window", 64}, {"use_sliding_window", true}}).native_window, 64);
}

TEST(ExpertsConfig, ActiveWidthCountsTheChosenAlone) {
  const ModelConfig config = parse("glm4_moe", {{"moe_intermediate_size", 10}, {"num_experts_per_tok", 3}});
  // One layer of 96, three of 3 * 10 + 10.
  EXPECT_EQ(config.mean_active_ffn(), (96 + 3 * 40) / 4);
  EXPECT_EQ(parse("llama", Json::object()).mean_active_ffn(), 96);
}

class ExpertsCheckpoint : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { write_random_checkpoint(directory_.path(), {.model_type = GetParam(), .n_layers = 2}); }
  const ScratchDirectory directory_;
};

TEST_P(ExpertsCheckpoint, RandomOnesAreWhole) {
  const ModelConfig config = read_config(directory_.path());
  const Checkpoint checkpoint(directory_.path());
  const CheckpointFaults faults = find_faults(config, checkpoint, 3);
  EXPECT_EQ(faults.count, 0) << (faults.lines.empty() ? "" : faults.lines.front());
  const auto ops = cpu::make_cpu_backend({.n_threads = 1});
  ModelWeights weights(config, checkpoint, *ops);
  const LayerWeights& layer = weights.layer(1);
  const kernels::RouterShape& router = config.experts.router;
  EXPECT_EQ(router.n_experts, 8);
  EXPECT_EQ(layer.router.weight.rows, router.n_experts);
  EXPECT_EQ(layer.router.correction.rows, config.family->experts.correction.empty() ? 0 : router.n_experts);
  EXPECT_EQ(layer.experts.gate_up.rows, router.n_experts * 2 * config.experts.ffn);
  EXPECT_EQ(layer.experts.down.rows, router.n_experts * config.hidden);
  EXPECT_EQ(layer.gate_up.rows, 2 * config.experts.shared_ffn);
  // Expert after expert, gate before up.
  const ExpertsFamily& names = config.family->experts;
  const std::string up = "model.layers.1." + std::string(names.each) + ".3." + std::string(names.up) + ".weight";
  const kernels::HostTensor& tensor = checkpoint.get(up, {config.experts.ffn, config.hidden});
  std::vector<float> expected(static_cast<std::size_t>(tensor.count()));
  kernels::read_float32(tensor, 0, tensor.count(), expected.data());
  const float* found = layer.experts.gate_up.as<float>() + 7 * config.experts.ffn * config.hidden;
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), found));
}

TEST_P(ExpertsCheckpoint, AFaultNamesTheTensor) {
  const auto fault = [&](const Json& change) {
    const std::filesystem::path file = directory_.path() / "config.json";
    Json json;
    std::ifstream(file) >> json;
    const std::string before = json.dump();
    json.update(change);
    std::ofstream(file) << json.dump();
    const ModelConfig config = read_config(directory_.path());
    std::ofstream(file) << before;
    const CheckpointFaults faults = find_faults(config, Checkpoint(directory_.path()), 1);
    return faults.lines.empty() ? std::string() : faults.lines.front();
  };
  const ExpertsFamily& names = find_family(GetParam())->experts;
  const std::string n_experts = first_word(names.n_experts_keys);
  EXPECT_NE(fault({{n_experts, 9}}).find(std::string(names.router) + ".weight"), std::string::npos)
      << fault({{n_experts, 9}});
  EXPECT_NE(fault({{n_experts, 7}}), "");
  const char* ffn = names.ffn == 0 ? "intermediate_size" : "moe_intermediate_size";
  EXPECT_NE(fault({{ffn, 40}}).find(std::string(names.each) + ".0."), std::string::npos) << fault({{ffn, 40}});
  EXPECT_EQ(fault(Json::object()), "");
}

// The file with the names of some tensors changed to others of the same length.
void rename_in(const std::filesystem::path& file, const std::string& from, const std::string& to) {
  std::stringstream content;
  content << std::ifstream(file, std::ios::binary).rdbuf();
  std::string text = content.str();
  ASSERT_EQ(from.size(), to.size());
  ASSERT_NE(text.find(from), std::string::npos);
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    text.replace(at, from.size(), to);
  }
  std::ofstream(file, std::ios::binary) << text;
}

TEST_P(ExpertsCheckpoint, AMissingExpertIsNamedOnce) {
  const ExpertsFamily& names = find_family(GetParam())->experts;
  const std::string tensor = "model.layers.1." + std::string(names.each) + ".5." + std::string(names.down) + ".weight";
  std::string other = tensor;
  other.replace(0, 5, "other");
  rename_in(directory_.path() / "model.safetensors", tensor, other);
  const CheckpointFaults faults = find_faults(read_config(directory_.path()), Checkpoint(directory_.path()), 9);
  ASSERT_EQ(faults.count, 1);
  EXPECT_NE(faults.lines[0].find(tensor), std::string::npos) << faults.lines[0];
}

TEST(ExpertsFile, LayersThatPredictFurtherTokensAreLeftOut) {
  const ScratchDirectory directory;
  // Three layers in the file and two in config.json: the third is one of MTP, if config.json says so.
  write_random_checkpoint(directory.path(), {.model_type = "glm4_moe", .n_layers = 3});
  const Checkpoint checkpoint(directory.path());
  const Json fields = {{"head_dim", 16},
                       {"num_hidden_layers", 2},
                       {"moe_intermediate_size", 48},
                       {"n_routed_experts", 8},
                       {"num_experts_per_tok", 2},
                       {"vocab_size", 128},
                       {"tie_word_embeddings", true},
                       {"num_nextn_predict_layers", 1}};
  const ModelConfig config = parse("glm4_moe", fields);
  EXPECT_EQ(find_faults(config, checkpoint, 1).count, 0);
  EXPECT_GT(count_mtp_tensors(config, checkpoint), 20);
  Json without = fields;
  without["num_nextn_predict_layers"] = 0;
  EXPECT_EQ(count_mtp_tensors(parse("glm4_moe", without), checkpoint), 0);
  EXPECT_GT(find_faults(parse("glm4_moe", without), checkpoint, 1).count, 20);
}

INSTANTIATE_TEST_SUITE_P(Families, ExpertsCheckpoint,
                         ::testing::Values("qwen3_moe", "mixtral", "olmoe", "glm4_moe", "minimax_m2", "ernie4_5_moe"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace winnow::model
