// Models with windows of their own against Transformers in float64 (golden/NAME_native.json): those stay in every
// pattern, and a layer that gets a window is turned as Transformers turns a layer of that type.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "model/weights.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/reference.h"
#include "pipeline/engine/sweep.h"
#include "tests/pipeline/run/golden_native.h"
#include "tests/tolerances.h"

namespace winnow::run {
namespace {

using nlohmann::json;

class NativeGolden : public ::testing::TestWithParam<const char*> {
 protected:
  const NativeModel model_{GetParam()};
  const json& golden_ = model_.golden;
  const model::ModelConfig& config_ = model_.config;
  const std::vector<GoldenExample>& examples_ = model_.examples;
  const std::unique_ptr<kernels::Ops> ops_ = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights_{config_, model_.checkpoint, *ops_};
};

TEST_P(NativeGolden, SweepEqualsTransformers) {
  double largest_delta = 0.0;
  ASSERT_GE(golden_.at("cases").size(), 2U);
  for (const json& expected : golden_.at("cases")) {
    const Settings settings = model_.settings(expected, golden_.at("window_keys"));
    ASSERT_EQ(settings.layers, (std::vector<int64_t>{0, 2}));
    for (std::size_t e = 0; e < examples_.size(); ++e) {
      const engine::SweepRequest request = NativeModel::request(examples_[e], settings);
      const engine::SweepResult found = engine::sweep(*ops_, config_, weights_, request, {});
      const auto nll = expected.at("nll").at(e).get<std::vector<double>>();
      const auto hits = expected.at("hits").at(e).get<std::vector<int64_t>>();
      ASSERT_EQ(nll.size(), found.variants.size() + 1);
      const auto n_answer = static_cast<double>(examples_[e].tokens.size()) - static_cast<double>(request.answer_start);
      for (std::size_t v = 0; v < nll.size(); ++v) {
        const engine::Score& score = v == 0 ? found.base : found.variants[v - 1];
        EXPECT_NEAR(score.nll_nats, nll[v], kNllTolerance * (1.0 + nll[v]))
            << describe(expected) << ", example " << e << ", pattern " << v;
        EXPECT_EQ(std::llround(score.token_accuracy * n_answer), hits[v]) << describe(expected) << ", example " << e;
        largest_delta = std::max(largest_delta, std::abs(nll[v] - nll[0]));
        // The sweep and a pass for that pattern alone, bit for bit.
        engine::SweepRequest alone = request;
        alone.base = v == 0 ? request.base : request.variants[v - 1];
        alone.variants.clear();
        EXPECT_EQ(engine::sweep(*ops_, config_, weights_, alone, {}).base.nll_nats, score.nll_nats) << v;
      }
    }
  }
  EXPECT_GT(largest_delta, 0.1) << "the windows matter";
}

TEST_P(NativeGolden, TheReferenceInFloat64Agrees) {
  const json& expected = golden_.at("cases").at(0);
  const Settings settings = model_.settings(expected, golden_.at("window_keys"));
  const GoldenExample& example = examples_.at(0);
  const kernels::Window window = settings.window_of(example.answer_start);
  for (std::size_t v = 0; v <= settings.layers.size(); ++v) {
    const engine::Pattern pattern = v == 0 ? settings.base : settings.variant(settings.layers[v - 1]);
    const engine::Score score = engine::reference_score(config_, model_.checkpoint, example.tokens,
                                                        example.answer_start, settings.layer_windows(pattern, window));
    const auto nll = expected.at("nll").at(0).at(v).get<double>();
    EXPECT_NEAR(score.nll_nats, nll, kNllTolerance * (1.0 + nll)) << v;
  }
}

// Lanes that fork in one layer with positions of their own and with the base's, and two bases in one stack.
TEST_P(NativeGolden, PatternsWithSeveralPositionsShareASweep) {
  const json plain = {{"sinks", 0}, {"decode", "windowed"}, {"tail_rows", nullptr}, {"base", "full"}};
  const Settings settings = model_.settings(plain, golden_.at("window_keys"));
  engine::LayerWindows turned_otherwise;  // layer 0 has the narrow window, and the positions that it has anyway
  std::vector<engine::SweepRequest> requests;
  for (const bool from_full : {true, false}) {
    const kernels::Window window = settings.window_of(examples_[0].answer_start);
    engine::SweepRequest request = NativeModel::request(examples_[0], settings);
    request.variants.clear();
    std::vector<engine::LayerWindows> all;
    for (const engine::Pattern& pattern :
         {engine::Pattern{false, true, false}, {true, true, false}, {false, true, true}, {true, true, true}}) {
      all.push_back(settings.layer_windows(pattern, window));
    }
    turned_otherwise = all[0];
    turned_otherwise[0].window = window;
    all.push_back(turned_otherwise);
    request.base = from_full ? all.front() : all[3];
    request.variants = all;
    requests.push_back(request);
  }
  const std::vector<engine::SweepResult> found = engine::sweep(*ops_, config_, weights_, requests, {});
  for (std::size_t r = 0; r < requests.size(); ++r) {
    for (std::size_t v = 0; v < requests[r].variants.size(); ++v) {
      engine::SweepRequest alone = requests[r];
      alone.base = requests[r].variants[v];
      alone.variants.clear();
      EXPECT_EQ(engine::sweep(*ops_, config_, weights_, alone, {}).base.nll_nats, found[r].variants[v].nll_nats)
          << "request " << r << ", variant " << v;
    }
  }
  const bool follows_type = config_.windowed_rope.has_value();
  EXPECT_EQ(found[0].variants[4].nll_nats == found[0].variants[1].nll_nats, !follows_type);
}

// All patterns side by side, whose rows of one layer are turned by several embeddings.
TEST_P(NativeGolden, GenerationWritesWhatTransformersWrites) {
  const json plain = {{"sinks", 0}, {"decode", "windowed"}, {"tail_rows", nullptr}, {"base", "full"}};
  const Settings settings = model_.settings(plain, golden_.at("native_window"));
  ASSERT_EQ(golden_.at("texts").size(), 4U);
  std::vector<engine::GenerationRequest> requests;
  std::vector<std::vector<int32_t>> expected;
  for (const json& text : golden_.at("texts")) {
    engine::Pattern pattern = settings.base;
    for (const json& layer : text.at("windowed")) pattern[layer.get<std::size_t>()] = true;
    for (std::size_t e = 0; e < examples_.size(); ++e) {
      const auto n_prompt = static_cast<std::size_t>(examples_[e].answer_start);
      expected.push_back(text.at("tokens").at(e).get<std::vector<int32_t>>());
      requests.push_back({.prompt = std::span(examples_[e].tokens).first(n_prompt),
                          .windows = settings.layer_windows(pattern, settings.window_of(examples_[e].answer_start)),
                          .max_new_tokens = static_cast<int64_t>(expected.back().size()),
                          .name = text.dump()});
    }
  }
  const engine::GenerationReport report = engine::generate(*ops_, config_, weights_, requests, {}, {});
  for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(report.texts[i].tokens, expected[i]) << requests[i].name;
  EXPECT_NE(expected.front(), expected.back()) << "the windows matter";
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, NativeGolden,
                         ::testing::Values("gemma2", "gemma3_text", "olmo3", "exaone4", "cohere2"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace winnow::run
