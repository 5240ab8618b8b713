// The goldens that golden/make_heads.py makes with Transformers, as the C++ tests read them.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "pipeline/engine/sweep.h"
#include "results/selection/pattern.h"
#include "tests/pipeline/run/golden.h"

namespace winnow::run {

inline nlohmann::json read_heads_golden() {
  std::ifstream file(kTests / "golden" / "heads.json");
  nlohmann::json golden = nlohmann::json::parse(file);
  if (golden.at("magic") != "winnow-heads" || golden.at("version") != 1) throw std::runtime_error("heads.json");
  return golden;
}

// The model's own golden, of which heads.json has the checkpoint and the examples.
inline nlohmann::json golden_of(const nlohmann::json& of_model, const std::string& made_by) {
  const auto name = of_model.at("name").get<std::string>();
  const std::string found = sha256_of_file(kTests / "golden" / (name + ".json"));
  if (found != of_model.at("golden_sha256").get<std::string>())
    throw std::runtime_error("heads.json is stale: run " + made_by);
  return read_golden(name);
}

inline std::vector<bool> heads_of(const nlohmann::json& table) {
  std::vector<bool> heads;
  for (const nlohmann::json& layer : table) {
    for (const nlohmann::json& head : layer) heads.push_back(head.get<int>() != 0);
  }
  return heads;
}

// Every head alone, then the mixture.
inline engine::SweepRequest heads_request(const GoldenExample& example, const Settings& settings,
                                          const nlohmann::json& mixture) {
  const kernels::Window window = settings.window_of(example.answer_start);
  engine::SweepRequest request{.tokens = example.tokens,
                               .answer_start = example.answer_start,
                               .base = settings.layer_windows(settings.base, window),
                               .variants = {}};
  std::vector<Variant> variants = settings.single_heads();
  Variant& mixed = variants.emplace_back();
  mixed.windowed_heads = heads_of(mixture);
  mixed.windowed = selection::windowed_layers(mixed.windowed_heads, static_cast<int64_t>(settings.base.size()));
  for (const Variant& variant : variants) request.variants.push_back(settings.layer_windows(variant, window));
  return request;
}

}  // namespace winnow::run
