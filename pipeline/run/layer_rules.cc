#include "pipeline/run/layer_rules.h"

#include <algorithm>

#include "base/error.h"
#include "base/strings.h"
#include "model/families.h"
#include "results/selection/pattern.h"

namespace winnow::run {
namespace {

constexpr const char* kListed = "list:";

[[noreturn]] void refuse_config(const RunOptions& options, const std::string& why) {
  fail(ExitCode::kBadData, (options.model / "config.json").string() + ": " + why);
}

// Where a window changes the positions of a layer, a measurement must say for which engine it is.
void check_positions(const RunOptions& options, const model::ModelConfig& config, const engine::LayerRules& rules) {
  if (rules.windowed_ropes.empty()) return;
  if (options.target != "hf") {
    refuse_config(options, "layer_types: in a " + config.model_type +
                               " the positions of a layer follow its type, so that a layer with full attention gets "
                               "other positions with a window; give --target hf to measure it as Transformers runs it");
  }
  // Rows before the tail would leave keys with the positions of full attention, which no query of the tail fits: no
  // engine keeps keys of both kinds in a layer.
  if (options.per_kv_head) {
    refuse_config(options, "layer_types: in a " + config.model_type +
                               " a window changes the positions of a layer, which its heads share; leave out "
                               "--per-kv-head");
  }
  const bool is_search = options.verb == Verb::kSearch;
  if (is_search ? options.exact : !options.tail_rows.has_value()) return;
  refuse_config(options, "layer_types: in a " + config.model_type +
                             " a window changes the positions of all rows of a layer, also before the tail, "
                             "whose keys the tail's queries would not fit; " +
                             (is_search ? "give --exact" : "leave out --tail-rows"));
}

}  // namespace

engine::LayerRules rules_of(const model::ModelConfig& config) {
  engine::LayerRules rules;
  const Pattern& native = config.native_window_layers;
  // A model with a window everywhere has nothing that could be measured beside it.
  if (std::ranges::find(native, false) != native.end()) {
    rules.native = native;
    rules.native_window = {.keys = *config.native_window};
  }
  if (!config.windowed_rope) return rules;
  for (const int32_t own : config.layer_ropes) {
    rules.windowed_ropes.push_back(own == *config.windowed_rope ? engine::LayerWindow::kOwnRope
                                                                : *config.windowed_rope);
  }
  const auto is_own = [](int32_t rope) { return rope == engine::LayerWindow::kOwnRope; };
  if (std::ranges::all_of(rules.windowed_ropes, is_own)) rules.windowed_ropes.clear();
  return rules;
}

void check_has_no_window(const engine::LayerRules& rules, const std::vector<int64_t>& layers, const std::string& flag) {
  for (const int64_t layer : layers) {
    if (!rules.has_native(static_cast<std::size_t>(layer))) continue;
    fail(ExitCode::kUsage, flag + ": layer " + std::to_string(layer) + " has a window of " +
                               std::to_string(rules.native_window.keys) +
                               " tokens of its own and keeps it; leave it out, or give --ignore-native-window");
  }
}

void take_layer_rules(const RunOptions& options, const model::ModelConfig& config, Settings& settings) {
  engine::LayerRules& rules = settings.rules;
  rules = rules_of(config);
  check_positions(options, config, rules);
  if (options.ignore_native_window) rules.native.clear();
  if (rules.native.empty()) return;
  const Pattern& native = rules.native;
  if (options.base.starts_with(kListed)) {
    check_has_no_window(
        rules, selection::parse_layers(options.base.substr(std::string(kListed).size()), config.n_layers, "--base"),
        "--base");
  }
  for (std::size_t layer = 0; layer < native.size(); ++layer) {
    if (native[layer]) settings.base[layer] = true;
  }
  settings.base_name = selection::pattern_name(settings.base);
  if (!options.layers.empty()) check_has_no_window(rules, settings.layers, "--layers");
  std::erase_if(settings.layers, [&](int64_t layer) { return native[static_cast<std::size_t>(layer)]; });
  const auto n_measured = static_cast<int64_t>(settings.layers.size());
  if (options.verb != Verb::kCalibrate || options.top_k.value_or(0) <= n_measured) return;
  fail(ExitCode::kUsage, "--top-k is " + std::to_string(*options.top_k) + ", but only " + std::to_string(n_measured) +
                             " layers have full attention and are measured");
}

}  // namespace winnow::run
