// The signals of layers on the CPU against Transformers in float64 (golden/*_signals.json, made by
// golden/make_signals.py).

#include <gtest/gtest.h>

#include <cmath>
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

class GoldenSignals : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    golden_ = read_golden(std::string(GetParam()) + "_signals");
    const std::filesystem::path directory = kTests / golden_.at("checkpoint").get<std::string>();
    config_ = model::read_config(directory);
    checkpoint_ = std::make_unique<model::Checkpoint>(directory);
    ops_ = cpu::make_cpu_backend({.n_threads = 2});
    weights_ = std::make_unique<model::ModelWeights>(config_, *checkpoint_, *ops_);
    examples_ = examples_of(golden_, config_.vocab);
  }

  // Every layer windowed alone, with all signals; setting: which lazy window.
  engine::SweepResult measure(std::size_t example, int64_t removed_rows, std::size_t setting) const {
    RunOptions options;
    options.window = golden_.at("window_keys").get<int64_t>();
    options.sinks = golden_.at("sinks").get<int64_t>();
    const Settings settings = resolve_settings(options, config_.n_layers);
    engine::SweepRequest request = request_of(examples_[example], settings, config_.n_layers);
    const json& lazy = golden_.at("lazy").at(setting);
    request.with_kl = true;
    request.signals = {.names = {"sensitivity", "mass", "lazy", "angular"},
                       .removed_rows = removed_rows,
                       .lazy = {lazy.at(0).get<int64_t>(), lazy.at(1).get<int64_t>(), lazy.at(2).get<int64_t>()}};
    return engine::sweep(*ops_, config_, *weights_, request, {});
  }
  static void expect_near(double found, double expected, const std::string& what) {
    EXPECT_NEAR(found, expected, kNllTolerance * (1.0 + std::abs(expected))) << what;
  }

  json golden_;
  model::ModelConfig config_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<model::ModelWeights> weights_;
  std::vector<GoldenExample> examples_;
};

TEST_P(GoldenSignals, EqualTransformers) {
  ASSERT_GE(examples_.size(), 3U);
  for (std::size_t e = 0; e < examples_.size(); ++e) {
    const json& expected = golden_.at("figures").at(e);
    const auto removed_rows = golden_.at("removed_rows").get<int64_t>();
    const engine::SweepResult tail = measure(e, removed_rows, 0);
    const engine::SweepResult all = measure(e, engine::SignalOptions::kAllRows, 1);
    expect_near(tail.base.nll_nats, expected.at("nll_base").get<double>(), "base");
    for (std::size_t layer = 0; layer < tail.variants.size(); ++layer) {
      const std::string what = "example " + std::to_string(e) + ", layer " + std::to_string(layer);
      const engine::Score& score = tail.variants[layer];
      const engine::SignalValues& signals = score.signals;
      expect_near(score.kl_nats, expected.at("kl").at(layer).get<double>(), what + ", KL");
      expect_near(engine::value_of(signals, "nll_removed"), expected.at("nll_removed_tail").at(layer).get<double>(),
                  what + ", tail");
      expect_near(engine::value_of(all.variants[layer].signals, "nll_removed"),
                  expected.at("nll_removed_all").at(layer).get<double>(), what + ", all rows");
      const auto mass = expected.at("mass_outside").at(layer).get<std::vector<double>>();
      const std::vector<double>& found_mass = signals.at("attention_mass_outside_kv_head");
      ASSERT_EQ(mass.size(), found_mass.size()) << what;
      for (std::size_t head = 0; head < mass.size(); ++head) expect_near(found_mass[head], mass[head], what);
      const auto angle = expected.at("angular_distance").at(layer).get<double>();
      EXPECT_NEAR(signals.at("angular_distance").at(0), angle, kAngleTolerance * angle) << what;
      for (const std::size_t setting : {0U, 1U}) {
        const engine::SignalValues& of_setting = setting == 0 ? signals : all.variants[layer].signals;
        const double clean = of_setting.at("lazy_ratio").front();
        const double compat = of_setting.at("lazy_ratio_compat").front();
        const json& ratios = expected.at("lazy").at(setting).at(layer);
        ASSERT_EQ(ratios.at(0).is_null(), std::isnan(clean)) << what;
        ASSERT_EQ(ratios.at(1).is_null(), std::isnan(compat)) << what;
        if (ratios.at(0).is_null()) continue;
        expect_near(clean, ratios.at(0).get<double>(), what + ", lazy");
        expect_near(compat, ratios.at(1).get<double>(), what + ", lazy, compat");
      }
    }
  }
}

// The examples have figures of every kind: a compat ratio beyond 1, one that there is not, mass on both sides.
TEST_P(GoldenSignals, CoverWhatTheyClaim) {
  bool exceeds = false;
  bool lacks = false;
  double largest_mass = 0.0;
  for (const json& figures : golden_.at("figures")) {
    for (const json& of_setting : figures.at("lazy")) {
      for (const json& ratio : of_setting) {
        lacks = lacks || ratio.at(1).is_null();
        exceeds = exceeds || (!ratio.at(1).is_null() && ratio.at(1).get<double>() > 1.0);
      }
    }
    for (const json& heads : figures.at("mass_outside")) {
      for (const json& mass : heads) largest_mass = std::max(largest_mass, mass.get<double>());
    }
  }
  EXPECT_TRUE(exceeds && lacks);
  EXPECT_GT(largest_mass, 0.2);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenSignals,
                         ::testing::Values("qwen3", "qwen2", "llama", "mistral", "granite_swa"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace winnow::run
