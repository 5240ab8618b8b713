// Whole sweeps on the GPU against Transformers (golden/*.json, made by golden/make_goldens.py): winnow may be off from
// float64 by as much as Transformers itself is in bfloat16, and a half more. Skipped where there is no GPU.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "pipeline/engine/sweep.h"
#include "tests/pipeline/run/golden_heads.h"
#include "tests/pipeline/run/golden_native.h"
#include "tests/tolerances.h"

namespace winnow::run {
namespace {

using nlohmann::json;
using Attention = cuda::CudaOptions::Attention;
using Table = std::vector<std::vector<double>>;  // (examples, 1 + layers): the base, then each layer flipped

class RootMeanSquare {
 public:
  void add(double error) {
    sum_ += error * error;
    count_ += 1;
  }
  double value() const { return std::sqrt(sum_ / static_cast<double>(count_)); }
  int64_t count() const { return count_; }

 private:
  double sum_ = 0.0;
  int64_t count_ = 0;
};

// Runs the cases of a golden that Transformers has computed in bfloat16 too.
class GoldenSweeps {
 public:
  GoldenSweeps(const std::string& name, kernels::Ops& ops)
      : ops_(ops),
        golden_(read_golden(name)),
        directory_(kTests / golden_.at("checkpoint").get<std::string>()),
        config_(model::read_config(directory_)),
        checkpoint_(directory_),
        weights_(config_, checkpoint_, ops_),
        examples_(examples_of(golden_, config_.vocab)) {}

  const json& cases() const { return golden_.at("cases"); }

  Table measure(const json& expected) {
    const Settings settings = settings_of(golden_, expected, config_.n_layers);
    Table table;
    for (const GoldenExample& example : examples_) {
      const engine::SweepResult found =
          engine::sweep(ops_, config_, weights_, request_of(example, settings, config_.n_layers), {});
      std::vector<double>& row = table.emplace_back(1, found.base.nll_nats);
      for (const engine::Score& score : found.variants) row.push_back(score.nll_nats);
    }
    return table;
  }

  std::string attention_path() { return ops_.device().attention_path(config_.heads); }

 private:
  kernels::Ops& ops_;
  json golden_;
  std::filesystem::path directory_;
  model::ModelConfig config_;
  model::Checkpoint checkpoint_;
  model::ModelWeights weights_;
  std::vector<GoldenExample> examples_;
};

// Layers by mean delta over the examples, falling; ties by index.
std::vector<int64_t> ranking(const Table& nll) {
  std::vector<double> delta(nll.at(0).size() - 1, 0.0);
  for (const std::vector<double>& row : nll) {
    for (std::size_t l = 0; l < delta.size(); ++l) delta[l] += row.at(l + 1) - row.at(0);
  }
  std::vector<int64_t> layers(delta.size());
  std::iota(layers.begin(), layers.end(), 0);
  std::stable_sort(layers.begin(), layers.end(), [&](int64_t a, int64_t b) {
    return delta[static_cast<std::size_t>(a)] > delta[static_cast<std::size_t>(b)];
  });
  return layers;
}

std::vector<int64_t> top(const Table& nll, int64_t k) {
  std::vector<int64_t> layers = ranking(nll);
  layers.resize(static_cast<std::size_t>(k));
  return layers;
}

void add_errors(const Table& found, const Table& expected, RootMeanSquare& error) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t e = 0; e < found.size(); ++e) {
    ASSERT_EQ(found[e].size(), expected[e].size()) << "example " << e;
    for (std::size_t v = 0; v < found[e].size(); ++v) error.add(found[e][v] - expected[e][v]);
  }
}

std::string path_name(Attention attention) {
  if (attention == Attention::kCudnn) return "cudnn";
  return attention == Attention::kBuiltin ? "own" : "auto";
}

class GoldenCuda : public ::testing::TestWithParam<std::tuple<const char*, Attention>> {
 protected:
  void SetUp() override {
    if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  }
};

TEST_P(GoldenCuda, ErrorIsNotLargerThanThatOfTransformersInBf16) {
  const auto& [name, attention] = GetParam();
  const auto ops = cuda::make_cuda_backend({.device = 0, .attention = attention});
  GoldenSweeps sweeps(std::string(name) + "_bf16", *ops);
  ASSERT_FALSE(sweeps.cases().empty());
  RootMeanSquare winnow;
  RootMeanSquare transformers;
  for (const json& expected : sweeps.cases()) {
    SCOPED_TRACE(describe(expected));
    const Table exact = expected.at("nll").get<Table>();
    const Table bf16 = expected.at("bf16_nll").get<Table>();
    const Table found = sweeps.measure(expected);
    add_errors(found, exact, winnow);
    add_errors(bf16, exact, transformers);
    // Only the demo's layers differ enough for a ranking over a few examples to mean something.
    if (std::string(name) == "demo") {
      EXPECT_EQ(top(found, 4), top(exact, 4)) << "by mean delta";
    }
  }
  std::cout << name << ", attention " << sweeps.attention_path() << ": RMS error against float64 over "
            << winnow.count() << " NLLs: winnow " << winnow.value() << " nats, Transformers in bfloat16 "
            << transformers.value() << " nats, ratio " << winnow.value() / transformers.value() << "\n";
  RecordProperty("winnow_rms_nats", std::to_string(winnow.value()));
  RecordProperty("transformers_bf16_rms_nats", std::to_string(transformers.value()));
  EXPECT_LE(winnow.value(), kBf16ErrorRatio * transformers.value());
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenCuda,
                         ::testing::Combine(::testing::Values("qwen3", "qwen2", "llama", "mistral", "demo"),
                                            ::testing::Values(Attention::kAuto, Attention::kCudnn,
                                                              Attention::kBuiltin)),
                         [](const auto& tested) {
                           return std::string(std::get<0>(tested.param)) + "_" + path_name(std::get<1>(tested.param));
                         });

// RMS error of the GPU against a golden in float64, nats.
double family_error(const std::string& name, Attention attention) {
  const auto ops = cuda::make_cuda_backend({.device = 0, .attention = attention});
  GoldenSweeps sweeps(name, *ops);
  RootMeanSquare error;
  for (const json& expected : sweeps.cases()) {
    add_errors(sweeps.measure(expected), expected.at("nll").get<Table>(), error);
  }
  std::cout << name << ", attention " << path_name(attention) << ": RMS error against float64 over " << error.count()
            << " NLLs: " << error.value() << " nats\n";
  return error.value();
}

// What Transformers itself is off by in bfloat16 on the examples of a golden, nats (golden/make_bf16_errors.py).
json transformers_errors() {
  std::ifstream file(kTests / "golden" / "bf16_errors.json");
  return json::parse(file).at("rms_nats");
}

// Of mixtures of experts bfloat16 also chooses other experts for some rows, here and there.
TEST(FamiliesCuda, AreAsNearFloat64AsTransformersInBf16) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const json errors = transformers_errors();
  int n_families = 0;
  for (const auto& [name, of_transformers] : errors.items()) {
    if (name.ends_with("_native")) continue;
    for (const Attention attention : {Attention::kAuto, Attention::kBuiltin}) {
      EXPECT_LE(family_error(name, attention), kBf16ErrorRatio * of_transformers.get<double>())
          << name << ", attention " << path_name(attention);
    }
    ++n_families;
  }
  EXPECT_EQ(n_families, 27);
}

// Key heads alone, and mixed, on both kernels; and all heads of a layer, one by one, are the layer bit for bit.
TEST(HeadsCuda, AreAsNearFloat64AsLayersAndMakeUpALayer) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const json errors = transformers_errors();
  const json file = read_heads_golden();
  int n_models = 0;
  for (const json& of_model : file.at("models")) {
    const auto name = of_model.at("name").get<std::string>();
    if (!errors.contains(name)) continue;
    ++n_models;
    const json golden = golden_of(of_model, file.at("made_by"));
    const std::filesystem::path directory = kTests / golden.at("checkpoint").get<std::string>();
    const model::ModelConfig config = model::read_config(directory);
    const model::Checkpoint checkpoint(directory, config.quantization);
    for (const Attention attention : {Attention::kAuto, Attention::kBuiltin}) {
      const auto ops = cuda::make_cuda_backend({.device = 0, .attention = attention});
      model::ModelWeights weights(config, checkpoint, *ops);
      RootMeanSquare error;
      for (const json& expected : of_model.at("cases")) {
        Settings settings = settings_of(golden, expected, config.n_layers);
        settings.n_kv_heads = config.heads.n_kv_heads;
        const std::vector<GoldenExample> examples = examples_of(golden, config.vocab);
        for (std::size_t e = 0; e < examples.size(); ++e) {
          engine::SweepRequest request = heads_request(examples[e], settings, of_model.at("mixture"));
          const std::size_t n_golden = request.variants.size();
          const kernels::Window window = settings.window_of(examples[e].answer_start);
          for (std::size_t l = 0; l < request.base.size(); ++l) {
            request.variants.push_back(settings.layer_windows(settings.variant(static_cast<int64_t>(l)), window));
            request.variants.push_back(request.variants.back());
            request.variants.back()[l].windowed_heads.assign(static_cast<std::size_t>(settings.n_kv_heads), true);
          }
          const engine::SweepResult found = engine::sweep(*ops, config, weights, request, {});
          const auto nll = expected.at("nll").at(e).get<std::vector<double>>();
          error.add(found.base.nll_nats - nll[0]);
          for (std::size_t v = 0; v < n_golden; ++v) error.add(found.variants[v].nll_nats - nll[v + 1]);
          for (std::size_t v = n_golden; v < request.variants.size(); v += 2) {
            EXPECT_EQ(found.variants[v].nll_nats, found.variants[v + 1].nll_nats) << name << ", variant " << v;
          }
        }
      }
      std::cout << name << ", heads, attention " << path_name(attention) << ": RMS error against float64 over "
                << error.count() << " NLLs: " << error.value() << " nats\n";
      EXPECT_LE(error.value(), kBf16HeadsErrorRatio * errors.at(name).get<double>()) << name;
    }
  }
  EXPECT_GE(n_models, 2);
}

// The same for windows of their own and positions that follow from them.
TEST(FamiliesCuda, WithWindowsOfTheirOwnAreAsNearFloat64) {
  if (cuda::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device answers";
  const json of_transformers = transformers_errors();
  for (const std::string name : {"gemma2", "gemma3_text", "olmo3", "exaone4", "cohere2"}) {
    const auto ops = cuda::make_cuda_backend({});
    const NativeModel model(name);
    model::ModelWeights weights(model.config, model.checkpoint, *ops);
    RootMeanSquare error;
    for (const json& expected : model.golden.at("cases")) {
      const Settings settings = model.settings(expected, model.golden.at("window_keys"));
      Table table;
      for (const GoldenExample& example : model.examples) {
        const engine::SweepRequest request = NativeModel::request(example, settings);
        const engine::SweepResult found = engine::sweep(*ops, model.config, weights, request, {});
        std::vector<double>& row = table.emplace_back(1, found.base.nll_nats);
        for (const engine::Score& score : found.variants) row.push_back(score.nll_nats);
      }
      add_errors(table, expected.at("nll").get<Table>(), error);
    }
    std::cout << name << ": RMS error against float64 over " << error.count() << " NLLs: " << error.value()
              << " nats\n";
    EXPECT_LE(error.value(), kBf16ErrorRatio * of_transformers.at(name + "_native").get<double>()) << name;
  }
}

}  // namespace
}  // namespace winnow::run
