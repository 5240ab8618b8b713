// The whole CPU path against Transformers in float64 (golden/*.json, made by golden/make_goldens.py): config and
// weights in every form, the window with sinks, decode modes and tail rows, the sweep, scores.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "pipeline/engine/sweep.h"
#include "tests/pipeline/run/golden.h"
#include "tests/tolerances.h"

namespace winnow::run {
namespace {

using nlohmann::json;

// Errors over the tolerance are failures; the largest one is kept to be recorded.
class Comparison {
 public:
  // An NLL or a difference of two, against its expected value; `scale` is the NLL that the tolerance follows.
  void nll(double found, double expected, double scale, const std::string& what) {
    const double error = std::abs(found - expected) / (1.0 + std::abs(scale));
    largest_ = std::max(largest_, error);
    EXPECT_LE(error, kNllTolerance) << what << ": found " << found << ", expected " << expected;
  }
  double largest() const { return largest_; }

 private:
  double largest_ = 0.0;
};

void compare_score(const engine::Score& found, int64_t expected_hits, int64_t n_answer, const std::string& what) {
  EXPECT_EQ(found.exact_match, expected_hits == n_answer) << what;
  EXPECT_EQ(std::llround(found.token_accuracy * static_cast<double>(n_answer)), expected_hits) << what;
}

class Golden : public ::testing::TestWithParam<const char*> {};

TEST_P(Golden, SweepEqualsTransformers) {
  const json golden = read_golden(GetParam());
  const std::filesystem::path directory = kTests / golden.at("checkpoint").get<std::string>();
  const model::ModelConfig config = model::read_config(directory);
  const model::Checkpoint checkpoint(directory, config.quantization);
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(config, checkpoint, *ops);

  Comparison comparison;
  const std::vector<GoldenExample> examples = examples_of(golden, config.vocab);
  ASSERT_GE(golden.at("cases").size(), 4U);
  for (const json& expected : golden.at("cases")) {
    const Settings settings = settings_of(golden, expected, config.n_layers);
    for (std::size_t e = 0; e < examples.size(); ++e) {
      const engine::SweepRequest request = request_of(examples[e], settings, config.n_layers);
      const engine::SweepResult found = engine::sweep(*ops, config, weights, request, {});

      const auto nll = expected.at("nll").at(e).get<std::vector<double>>();
      const auto hits = expected.at("hits").at(e).get<std::vector<int64_t>>();
      ASSERT_EQ(nll.size(), found.variants.size() + 1);
      const int64_t n_answer = static_cast<int64_t>(examples[e].tokens.size()) - request.answer_start;
      for (std::size_t v = 0; v < nll.size(); ++v) {
        const engine::Score& score = v == 0 ? found.base : found.variants[v - 1];
        const std::string what = describe(expected) + ", example " + std::to_string(e) +
                                 (v == 0 ? ", base" : ", layer " + std::to_string(v - 1) + " flipped");
        comparison.nll(score.nll_nats, nll[v], nll[v], what);
        comparison.nll(score.nll_nats - found.base.nll_nats, nll[v] - nll[0], nll[v], what + ", delta");
        compare_score(score, hits[v], n_answer, what);
        if (!expected.contains("token_nll") || e >= expected.at("token_nll").size()) continue;
        const auto token_nll = expected.at("token_nll").at(e).at(v).get<std::vector<double>>();
        ASSERT_EQ(token_nll.size(), score.token_nll_nats.size()) << what;
        for (std::size_t t = 0; t < token_nll.size(); ++t) {
          comparison.nll(score.token_nll_nats[t], token_nll[t], token_nll[t], what + ", token " + std::to_string(t));
        }
      }
    }
  }
  RecordProperty("largest_error_of_1_plus_nll", std::to_string(comparison.largest()));
  std::cout << GetParam() << ": largest error " << comparison.largest() << " (1 + |NLL|)\n";
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden,
                         ::testing::Values("qwen3", "qwen2", "llama", "mistral", "demo", "ministral3", "llama_yarn",
                                           "llama_linear", "llama_dynamic", "seed_oss", "smollm3", "granite", "phi3",
                                           "glm4", "hunyuan_v1_dense", "olmo2", "gemma2", "gemma3_text", "olmo3",
                                           "exaone4", "qwen3_vl", "mistral3", "cohere2", "qwen3_moe", "qwen3_moe_plain",
                                           "mixtral", "olmoe", "glm4_moe", "minimax_m2", "ernie4_5_moe", "granite_swa",
                                           "gpt_oss"),
                         [](const auto& tested) { return std::string(tested.param); });

// The weight formats (golden/make_quantized.py): the same model from the file to the figure.
INSTANTIATE_TEST_SUITE_P(WeightFormats, Golden,
                         ::testing::Values("quantized/fp8_block", "quantized/fp8_ceil_block", "quantized/fp8_tensor",
                                           "quantized/fp8_fbgemm", "quantized/fp8_modelopt", "quantized/fp8_channel",
                                           "quantized/int8_channel", "quantized/mxfp4_packed",
                                           "quantized/mxfp4_gpt_oss", "quantized/int4_packed",
                                           "quantized/int4_zero_points", "quantized/nvfp4_modelopt",
                                           "quantized/nvfp4_packed", "quantized/awq", "quantized/gptq",
                                           "quantized/gptq_act_order", "quantized/nf4", "quantized/nf4_nested"),
                         [](const auto& tested) { return std::string(tested.param).substr(sizeof("quantized")); });

// What the goldens must contain to be worth comparing with: windows that matter, and matches of both kinds.
TEST(GoldenFile, CoversWhatItClaims) {
  for (const std::string name : {"qwen3", "qwen2", "llama", "mistral"}) {
    const json golden = read_golden(name);
    std::size_t full_base_cases = 0;
    double largest_delta = 0.0;
    bool has_match = false;
    bool loses_match = false;
    for (const json& expected : golden.at("cases")) {
      full_base_cases += expected.at("base") == "full" ? 1 : 0;
      for (std::size_t e = 0; e < expected.at("nll").size(); ++e) {
        const auto nll = expected.at("nll").at(e).get<std::vector<double>>();
        const auto hits = expected.at("hits").at(e).get<std::vector<int64_t>>();
        const json& example = golden.at("examples").at(e);
        const int64_t n_answer =
            static_cast<int64_t>(example.at("tokens").size()) - example.at("answer_start").get<int64_t>();
        for (std::size_t v = 1; v < nll.size(); ++v) {
          largest_delta = std::max(largest_delta, std::abs(nll[v] - nll[0]));
          loses_match = loses_match || (hits[0] == n_answer && hits[v] < n_answer);
        }
        has_match = has_match || hits[0] == n_answer;
      }
    }
    EXPECT_EQ(full_base_cases, 16U) << name << ": 2 sinks x 2 decode modes x 4 tails";
    EXPECT_GT(largest_delta, 0.5) << name;
    EXPECT_TRUE(has_match && loses_match) << name;
  }
}

}  // namespace
}  // namespace winnow::run
