// The whole CPU path against Transformers in float64 (golden/*.json, made by golden/make_goldens.py): config and
// weights in every form, the window with sinks, decode modes and tail rows, the sweep, scores.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/safetensors.h"
#include "model/weights.h"
#include "pipeline/digest.h"
#include "pipeline/options.h"
#include "pipeline/sweep.h"
#include "tests/tolerances.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kTests = WINNOW_TESTS_DIR;

// The golden of that name, checked: a stale one throws with the command that rebuilds it.
json read_golden(const std::string& name) {
  const fs::path path = kTests / "golden" / (name + ".json");
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + " is missing: run python3 tests/golden/make_goldens.py " + name);
  json golden = json::parse(file);
  const auto rebuild = golden.at("made_by").get<std::string>();
  if (golden.at("magic") != "winnow-golden" || golden.at("version") != 1) {
    throw std::runtime_error(path.string() + " has another format: run " + rebuild);
  }
  const fs::path checkpoint = kTests / golden.at("checkpoint").get<std::string>();
  for (const auto& [file_name, expected] : golden.at("sha256").items()) {
    const std::string found = sha256_of_file(checkpoint / file_name);
    if (found != expected.get<std::string>()) {
      throw std::runtime_error(path.string() + " is stale, " + (checkpoint / file_name).string() + " has SHA-256 " +
                               found + ", expected " + expected.get<std::string>() + ": run " + rebuild);
    }
  }
  return golden;
}

SweepRequest request_of(const json& example, const std::vector<int32_t>& tokens, const Settings& settings,
                        int64_t n_layers) {
  const auto answer_start = example.at("answer_start").get<int64_t>();
  SweepRequest request{.tokens = tokens,
                       .answer_start = answer_start,
                       .window = settings.window_of(answer_start),
                       .base = settings.base,
                       .variants = {},
                       .per_token = true};
  for (int64_t layer = 0; layer < n_layers; ++layer) request.variants.push_back(settings.variant(layer));
  return request;
}

Settings settings_of(const json& golden, const json& expected, int64_t n_layers) {
  CalibrateOptions options;
  options.window = golden.at("window_keys").get<int64_t>();
  options.sinks = expected.at("sinks").get<int64_t>();
  options.decode = expected.at("decode").get<std::string>();
  options.base = expected.at("base").get<std::string>();
  if (!expected.at("tail_rows").is_null()) options.tail_rows = expected.at("tail_rows").get<int64_t>();
  return resolve_settings(options, n_layers);
}

std::string describe(const json& expected) {
  return "sinks " + expected.at("sinks").dump() + ", decode " + expected.at("decode").dump() + ", tail rows " +
         expected.at("tail_rows").dump() + ", base " + expected.at("base").dump();
}

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

void compare_score(const Score& found, int64_t expected_hits, int64_t n_answer, const std::string& what) {
  EXPECT_EQ(found.exact_match, expected_hits == n_answer) << what;
  EXPECT_EQ(std::llround(found.token_accuracy * static_cast<double>(n_answer)), expected_hits) << what;
}

class Golden : public ::testing::TestWithParam<const char*> {};

TEST_P(Golden, SweepEqualsTransformers) {
  const json golden = read_golden(GetParam());
  const fs::path directory = kTests / golden.at("checkpoint").get<std::string>();
  const ModelConfig config = read_config(directory);
  const Checkpoint checkpoint(directory);
  const auto backend = make_cpu_backend({.n_threads = 2});
  ModelWeights weights(config, checkpoint, *backend);

  Comparison comparison;
  ASSERT_GE(golden.at("cases").size(), 4U);
  for (const json& expected : golden.at("cases")) {
    const Settings settings = settings_of(golden, expected, config.n_layers);
    for (std::size_t e = 0; e < golden.at("examples").size(); ++e) {
      const json& example = golden.at("examples").at(e);
      const auto tokens = example.at("tokens").get<std::vector<int32_t>>();
      const SweepRequest request = request_of(example, tokens, settings, config.n_layers);
      const SweepResult found = sweep(*backend, config, weights, request, {});

      const auto nll = expected.at("nll").at(e).get<std::vector<double>>();
      const auto hits = expected.at("hits").at(e).get<std::vector<int64_t>>();
      ASSERT_EQ(nll.size(), found.variants.size() + 1);
      const int64_t n_answer = static_cast<int64_t>(tokens.size()) - request.answer_start;
      for (std::size_t v = 0; v < nll.size(); ++v) {
        const Score& score = v == 0 ? found.base : found.variants[v - 1];
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

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden, ::testing::Values("qwen3", "qwen2", "llama", "mistral", "demo"),
                         [](const auto& tested) { return std::string(tested.param); });

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
}  // namespace winnow
