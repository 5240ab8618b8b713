// The goldens that golden/make_goldens.py makes with Transformers, as the C++ tests read them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "model/config.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/run/corpus.h"
#include "pipeline/run/options/options.h"

namespace winnow {

inline const std::filesystem::path kTests = WINNOW_TESTS_DIR;

// The golden of that name, checked: a stale one throws with the command that rebuilds it.
inline nlohmann::json read_golden(const std::string& name) {
  const std::filesystem::path path = kTests / "golden" / (name + ".json");
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + " is missing: run python3 tests/golden/make_goldens.py " + name);
  nlohmann::json golden = nlohmann::json::parse(file);
  const auto rebuild = golden.at("made_by").get<std::string>();
  if (golden.at("magic") != "winnow-golden" || golden.at("version") != 1) {
    throw std::runtime_error(path.string() + " has another format: run " + rebuild);
  }
  const auto check = [&](const std::filesystem::path& source, const nlohmann::json& expected) {
    const std::string found = sha256_of_file(source);
    if (found != expected.get<std::string>()) {
      throw std::runtime_error(path.string() + " is stale, " + source.string() + " has SHA-256 " + found +
                               ", expected " + expected.get<std::string>() + ": run " + rebuild);
    }
  };
  const std::filesystem::path checkpoint = kTests / golden.at("checkpoint").get<std::string>();
  for (const auto& [file_name, expected] : golden.at("sha256").items()) check(checkpoint / file_name, expected);
  if (golden.contains("data")) {
    check(kTests / golden.at("data").at("path").get<std::string>(), golden.at("data").at("sha256"));
  }
  return golden;
}

struct GoldenExample {
  std::vector<int32_t> tokens;
  int64_t answer_start = 0;
};

// A golden has its examples itself, or the first ones of a calibration file.
inline std::vector<GoldenExample> examples_of(const nlohmann::json& golden, int64_t vocab) {
  std::vector<GoldenExample> examples;
  if (golden.contains("data")) {
    const run::Corpus corpus = run::read_corpus(kTests / golden.at("data").at("path").get<std::string>(), vocab);
    for (int64_t e = 0; e < golden.at("data").at("n_examples").get<int64_t>(); ++e) {
      const auto tokens = corpus.example(e);
      examples.push_back({{tokens.begin(), tokens.end()}, corpus.answer_start.at(static_cast<std::size_t>(e))});
    }
    return examples;
  }
  for (const nlohmann::json& example : golden.at("examples")) {
    examples.push_back({example.at("tokens").get<std::vector<int32_t>>(), example.at("answer_start").get<int64_t>()});
  }
  return examples;
}

inline run::Settings settings_of(const nlohmann::json& golden, const nlohmann::json& expected, int64_t n_layers) {
  run::RunOptions options;
  options.window = golden.at("window_keys").get<int64_t>();
  options.sinks = expected.at("sinks").get<int64_t>();
  options.decode = expected.at("decode").get<std::string>();
  options.base = expected.at("base").get<std::string>();
  if (!expected.at("tail_rows").is_null()) options.tail_rows = expected.at("tail_rows").get<int64_t>();
  return run::resolve_settings(options, n_layers);
}

// Every layer flipped alone. The request points into the example's tokens.
inline engine::SweepRequest request_of(const GoldenExample& example, const run::Settings& settings, int64_t n_layers) {
  const kernels::Window window = settings.window_of(example.answer_start);
  engine::SweepRequest request{.tokens = example.tokens,
                               .answer_start = example.answer_start,
                               .base = engine::layer_windows_of(settings.base, window),
                               .variants = {},
                               .per_token = true};
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    request.variants.push_back(engine::layer_windows_of(settings.variant(layer), window));
  }
  return request;
}

inline std::string describe(const nlohmann::json& expected) {
  return "sinks " + expected.at("sinks").dump() + ", decode " + expected.at("decode").dump() + ", tail rows " +
         expected.at("tail_rows").dump() + ", base " + expected.at("base").dump();
}

}  // namespace winnow
