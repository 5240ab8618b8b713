// The keys that each layer of a model may look at: the setting that a pass runs with, one entry a layer.
#pragma once

#include <cstdint>
#include <vector>

#include "base/pattern.h"
#include "kernels/window.h"

namespace winnow::engine {

using winnow::Pattern;

// The setting of one layer, for one example. Layers differ in nothing else.
struct LayerWindow {
  kernels::Window window;
  // The type in which a layer keeps its keys and values would be a member here: a variant that differs in it alone
  // would leave the base in that layer too, and differ from the first row on (first_different_row).
  bool operator==(const LayerWindow&) const = default;
};

using LayerWindows = std::vector<LayerWindow>;  // (n_layers)

// Returns the window where the pattern says so, full attention elsewhere; (n_layers).
LayerWindows layer_windows_of(const Pattern& pattern, const kernels::Window& window);

// Returns the first layer in which a variant differs from the base, or n_layers. Both have the same number of layers.
int64_t fork_layer_of(const LayerWindows& base, const LayerWindows& variant);
// Returns the first row that sees other keys in one of them than in the other, or kernels::kNoLimit and more: rows
// before it are the same, in every layer.
int64_t first_different_row(const LayerWindows& base, const LayerWindows& variant);
// Returns the first row that does not see everything in some layer, or kernels::kNoLimit and more.
int64_t first_affected_row(const LayerWindows& windows);

}  // namespace winnow::engine
