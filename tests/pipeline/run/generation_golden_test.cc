// Texts that Transformers' generate() wrote (golden/make_generation.py) against those of winnow's windowed cache.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "kernels/cpu/cpu.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "pipeline/engine/generation.h"
#include "pipeline/run/corpus.h"

namespace winnow::run {
namespace {

const std::filesystem::path kTests = WINNOW_TESTS_DIR;

nlohmann::json read_golden() {
  std::ifstream file(kTests / "golden" / "generation.json");
  nlohmann::json golden = nlohmann::json::parse(file);
  for (const auto& [name, expected] : golden.at("sha256").items()) {
    EXPECT_EQ(sha256_of_file(kTests / name), expected.get<std::string>()) << name << ": run " << golden.at("made_by");
  }
  return golden;
}

class GenerationGolden : public ::testing::Test {
 protected:
  // Every text of a case: all of the golden's tokens, which end where the choice was not clear-cut. Returns how many.
  int64_t compare(const nlohmann::json& expected, int64_t new_tokens) {
    engine::Pattern windowed(static_cast<std::size_t>(config_.n_layers), true);
    for (const auto& layer : expected.at("full_layers")) windowed[layer.get<std::size_t>()] = false;
    std::vector<engine::GenerationRequest> requests;
    for (const auto& text : expected.at("texts")) {
      const auto n_prompt = text.at("prompt_tokens").get<int64_t>();
      kernels::Window window{.keys = expected.at("window_keys").get<int64_t>(),
                             .sinks = expected.at("sinks").get<int64_t>()};
      if (expected.at("decode") == "full") window.end_row = n_prompt;
      requests.push_back(
          {.prompt = corpus_.example(text.at("example").get<int64_t>()).first(static_cast<std::size_t>(n_prompt)),
           .windows = engine::layer_windows_of(windowed, window),
           .max_new_tokens = new_tokens,
           .name = expected.at("name")});
    }
    const engine::GenerationReport report = engine::generate(*ops_, config_, weights_, requests, {}, {});
    int64_t n_tokens = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto tokens = expected.at("texts")[i].at("tokens").get<std::vector<int32_t>>();
      std::vector<int32_t> found = report.texts[i].tokens;
      found.resize(tokens.size());
      EXPECT_EQ(found, tokens) << expected.at("name") << ", text " << i;
      n_tokens += static_cast<int64_t>(tokens.size());
    }
    return n_tokens;
  }

  const nlohmann::json golden_ = read_golden();
  const std::filesystem::path directory_ = kTests / "demo" / "model";
  const model::ModelConfig config_ = model::read_config(directory_);
  const model::Checkpoint checkpoint_{directory_};
  const Corpus corpus_ = read_corpus(kTests / "demo" / "test.h5", config_.vocab);
  const std::unique_ptr<kernels::Ops> ops_ = cpu::make_cpu_backend({.n_threads = 2});
  model::ModelWeights weights_{config_, checkpoint_, *ops_};
};

TEST_F(GenerationGolden, FullAttentionWritesWhatTransformersWrites) {
  const auto& full = golden_.at("cases").at(0);
  ASSERT_EQ(full.at("name"), "full");
  ASSERT_GE(full.at("texts").size(), 200U);
  EXPECT_GT(compare(full, golden_.at("new_tokens").get<int64_t>()), 4000);
}

TEST_F(GenerationGolden, WindowedLayersWriteWhatTransformersWrites) {
  ASSERT_GE(golden_.at("cases").size(), 10U);
  for (std::size_t i = 1; i < golden_.at("cases").size(); ++i) {
    EXPECT_GT(compare(golden_.at("cases")[i], golden_.at("new_tokens").get<int64_t>()), 20);
  }
}

}  // namespace
}  // namespace winnow::run
