#include "pipeline/engine/layer_windows.h"

#include <algorithm>

namespace winnow::engine {

LayerWindows layer_windows_of(const Pattern& pattern, const kernels::Window& window) {
  return by_layer<LayerWindow>(pattern, {window}, {kernels::full_attention()});
}

int64_t fork_layer_of(const LayerWindows& base, const LayerWindows& variant) {
  const auto difference = std::mismatch(base.begin(), base.end(), variant.begin());
  return difference.first - base.begin();
}

int64_t first_different_row(const LayerWindows& base, const LayerWindows& variant) {
  int64_t first = kernels::kNoLimit;
  for (std::size_t layer = 0; layer < base.size(); ++layer) {
    if (base[layer] == variant[layer]) continue;
    // Rows before both are affected see everything in both.
    first = std::min(
        {first, kernels::first_affected_row(base[layer].window), kernels::first_affected_row(variant[layer].window)});
  }
  return first;
}

int64_t first_affected_row(const LayerWindows& windows) {
  int64_t first = kernels::kNoLimit;
  for (const LayerWindow& layer : windows) first = std::min(first, kernels::first_affected_row(layer.window));
  return first;
}

}  // namespace winnow::engine
