// Goldens of models with windows of their own (golden/NAME_native.json), as the tests of both backends run them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "pipeline/run/layer_rules.h"
#include "tests/pipeline/run/golden.h"

namespace winnow {

struct NativeModel {
  explicit NativeModel(const std::string& name) : golden(read_golden(name + "_native")) {}

  // The measurement of a case, with windowed layers that see so many keys.
  run::Settings settings(const nlohmann::json& expected, int64_t window) const {
    run::RunOptions options;
    options.model = directory;
    options.target = config.windowed_rope ? "hf" : "";
    options.window = window;
    options.base = expected.at("base").get<std::string>();
    options.sinks = expected.at("sinks").get<int64_t>();
    options.decode = expected.at("decode").get<std::string>();
    if (!expected.at("tail_rows").is_null()) options.tail_rows = expected.at("tail_rows").get<int64_t>();
    run::Settings settings = run::resolve_settings(options, config.n_layers);
    run::take_layer_rules(options, config, settings);
    return settings;
  }

  // The base and every measured layer flipped alone.
  static engine::SweepRequest request(const GoldenExample& example, const run::Settings& settings) {
    const kernels::Window window = settings.window_of(example.answer_start);
    engine::SweepRequest request{.tokens = example.tokens,
                                 .answer_start = example.answer_start,
                                 .base = settings.layer_windows(settings.base, window),
                                 .variants = {}};
    for (const int64_t layer : settings.layers) {
      request.variants.push_back(settings.layer_windows(settings.variant(layer), window));
    }
    return request;
  }

  nlohmann::json golden;
  std::filesystem::path directory = kTests / golden.at("checkpoint").get<std::string>();
  model::ModelConfig config = with_types_of_golden();
  model::Checkpoint checkpoint{directory};
  std::vector<GoldenExample> examples = examples_of(golden, config.vocab);

 private:
  // The checkpoint's own, with the types that the golden gives its layers.
  model::ModelConfig with_types_of_golden() const {
    nlohmann::json fields = nlohmann::json::parse(model::read_config(directory).text);
    fields["layer_types"] = golden.at("layer_types");
    fields["sliding_window"] = golden.at("native_window");
    return model::parse_config(fields.dump(), directory.string());
  }
};

}  // namespace winnow
