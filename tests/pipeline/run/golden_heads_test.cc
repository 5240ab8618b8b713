// Key heads windowed alone against Transformers in float64 with a mask for each head (golden/heads.json, made by
// golden/make_heads.py).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "model/checkpoint.h"
#include "model/weights.h"
#include "pipeline/engine/sweep.h"
#include "tests/pipeline/run/golden_heads.h"
#include "tests/tolerances.h"

namespace winnow::run {
namespace {

using nlohmann::json;

class GoldenHeads : public ::testing::TestWithParam<std::size_t> {};

TEST_P(GoldenHeads, EqualTransformersWithAMaskForEachHead) {
  const json file = read_heads_golden();
  const json& of_model = file.at("models").at(GetParam());
  const json golden = golden_of(of_model, file.at("made_by"));
  const std::filesystem::path directory = kTests / golden.at("checkpoint").get<std::string>();
  const model::ModelConfig config = model::read_config(directory);
  const model::Checkpoint checkpoint(directory, config.quantization);
  const auto ops = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights(config, checkpoint, *ops);
  ASSERT_EQ(of_model.at("kv_heads"), config.heads.n_kv_heads);
  double largest_delta = 0.0;
  for (const json& expected : of_model.at("cases")) {
    Settings settings = settings_of(golden, expected, config.n_layers);
    settings.n_kv_heads = config.heads.n_kv_heads;
    const std::vector<GoldenExample> examples = examples_of(golden, config.vocab);
    for (std::size_t e = 0; e < examples.size(); ++e) {
      const engine::SweepRequest request = heads_request(examples[e], settings, of_model.at("mixture"));
      const engine::SweepResult found = engine::sweep(*ops, config, weights, request, {});
      const auto nll = expected.at("nll").at(e).get<std::vector<double>>();
      const auto hits = expected.at("hits").at(e).get<std::vector<int64_t>>();
      ASSERT_EQ(nll.size(), found.variants.size() + 1);
      const auto n_answer = static_cast<double>(examples[e].tokens.size()) - static_cast<double>(request.answer_start);
      for (std::size_t v = 0; v < nll.size(); ++v) {
        const engine::Score& score = v == 0 ? found.base : found.variants[v - 1];
        const std::string what =
            describe(expected) + ", example " + std::to_string(e) + ", pattern " + std::to_string(v);
        EXPECT_LE(std::abs(score.nll_nats - nll[v]), kNllTolerance * (1.0 + nll[v])) << what;
        const double delta = nll[v] - nll[0];
        EXPECT_LE(std::abs(score.nll_nats - found.base.nll_nats - delta), kNllTolerance * (1.0 + nll[v])) << what;
        largest_delta = std::max(largest_delta, std::abs(delta));
        if (hits[v] >= 0) {
          EXPECT_EQ(std::llround(score.token_accuracy * n_answer), hits[v]) << what;
        }
      }
    }
  }
  EXPECT_GT(largest_delta, 1e-3) << "the windows must matter";
}

std::string name_of(const ::testing::TestParamInfo<std::size_t>& tested) {
  static const std::vector<std::string> kNames = {"qwen3", "llama", "gemma2", "granite_swa"};
  return kNames.at(tested.param);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenHeads, ::testing::Values(0, 1, 2, 3), name_of);

}  // namespace
}  // namespace winnow::run
