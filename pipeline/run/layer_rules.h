// What a model's own layers mean for a measurement: windows that the checkpoint sets, which stay, and positions that
// follow from whether a layer has a window.
#pragma once

#include "model/config.h"
#include "pipeline/run/options/options.h"

namespace winnow::run {

// Returns what a model's layers have of their own, as Transformers runs them.
engine::LayerRules rules_of(const model::ModelConfig& config);

// Adds to the settings what the model's layers have of their own (Settings::rules). Layers with a window of their own
// keep it in the base and in every variant; `settings.layers`, which are measured, become those with full attention.
// With --ignore-native-window, and where all layers of a model have a window, there are no such layers. Throws
// Error(kUsage) where --layers, --top-k or --base ask for what these layers do not give, Error(kBadData) where no layer
// has full attention, or where positions follow the type of a layer and no --target says that they shall.
void take_layer_rules(const RunOptions& options, const model::ModelConfig& config, Settings& settings);

// Refuses a list of layers that names one with a window of its own: Error(kUsage). `flag` names it in messages.
void check_has_no_window(const engine::LayerRules& rules, const std::vector<int64_t>& layers, const std::string& flag);

}  // namespace winnow::run
