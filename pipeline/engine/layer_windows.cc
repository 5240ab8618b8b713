#include "pipeline/engine/layer_windows.h"

#include <algorithm>

namespace winnow::engine {

LayerWindows layer_windows_of(const Pattern& pattern, const kernels::Window& window, const LayerRules& rules) {
  LayerWindows windows = by_layer<LayerWindow>(pattern, {window}, {kernels::full_attention()});
  for (std::size_t layer = 0; layer < windows.size(); ++layer) {
    if (rules.has_native(layer)) {
      windows[layer] = {rules.native_window};
    } else if (pattern[layer] && !rules.windowed_ropes.empty()) {
      windows[layer].rope = rules.windowed_ropes[layer];
    }
  }
  return windows;
}

int64_t fork_layer_of(const LayerWindows& base, const LayerWindows& variant) {
  const auto difference = std::mismatch(base.begin(), base.end(), variant.begin());
  return difference.first - base.begin();
}

int64_t first_different_row(const LayerWindows& base, const LayerWindows& variant) {
  int64_t first = kernels::kNoLimit;
  for (std::size_t layer = 0; layer < base.size(); ++layer) {
    if (base[layer] == variant[layer]) continue;
    if (base[layer].rope != variant[layer].rope) return 0;
    // Rows before both are affected see everything in both.
    first = std::min(
        {first, kernels::first_affected_row(base[layer].window), kernels::first_affected_row(variant[layer].window)});
  }
  return first;
}

LayerWindows settings_of_first_rows(const LayerWindows& windows, int64_t n_rows) {
  LayerWindows settings = windows;
  for (LayerWindow& layer : settings) {
    if (kernels::first_affected_row(layer.window) >= n_rows) layer.window = kernels::full_attention();
  }
  return settings;
}

}  // namespace winnow::engine
