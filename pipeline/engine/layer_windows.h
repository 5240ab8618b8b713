// The keys that each layer of a model may look at, and the type in which it keeps them: the setting that a pass runs
// with, one entry a layer.
#pragma once

#include <cstdint>
#include <vector>

#include "base/kv_type.h"
#include "base/pattern.h"
#include "kernels/ops.h"
#include "kernels/window.h"

namespace winnow::engine {

using winnow::Pattern;

// The setting of one layer, for one example. Layers differ in nothing else.
struct LayerWindow {
  static constexpr int32_t kOwnRope = -1;
  kernels::Window window;
  // Rotary embedding of all its rows, index into ModelConfig::ropes; kOwnRope: the one that the layer has anyway. A
  // variant that differs in it leaves the base in that layer, and differs from the first row on.
  int32_t rope = kOwnRope;
  // Key heads that have the window, each with its group of query heads, where they are not all of them: the others see
  // everything; (n_kv_heads), or empty: all have it. with_heads() makes them.
  std::vector<bool> windowed_heads{};
  // The type in which an engine keeps the layer's keys and values: rows from kv_first_row on read all of them rounded
  // to it (kernels/kv_rounding.h), those of rows before included, as an engine keeps one cache. Rows before read what
  // the layer computes; with tail rows those are the rows before the tail. 0 where the type is kStored.
  KvType kv = KvType::kStored;
  int64_t kv_first_row = 0;

  bool has_rounded_keys() const { return kv != KvType::kStored; }
  bool operator==(const LayerWindow&) const = default;
};

using LayerWindows = std::vector<LayerWindow>;  // (n_layers)

// What a model's layers have besides the window of a pattern. Empty lists: nothing.
struct LayerRules {
  Pattern native;  // (n_layers), true where the window below stays whatever a pattern says
  kernels::Window native_window;
  std::vector<int32_t> windowed_ropes;  // (n_layers), LayerWindow::rope of a layer that gets a window

  bool has_native(std::size_t layer) const { return !native.empty() && native[layer]; }
};

// Returns the window where the pattern says so, full attention elsewhere, and what the rules say; (n_layers).
LayerWindows layer_windows_of(const Pattern& pattern, const kernels::Window& window, const LayerRules& rules = {});

// Returns a layer's setting with its window in these key heads alone, (n_kv_heads), in its one form: that of a whole
// layer where they are all of them, full attention where they are none.
LayerWindow with_heads(const LayerWindow& layer, const std::vector<bool>& windowed_heads);
// Adds a layer's attention call for rows that have this setting: one with its window, or where the setting is that of
// some heads alone, one for each run of heads that see the same. The call's own window does not count.
void add_attention(const kernels::AttentionCall& call, const LayerWindow& setting,
                   std::vector<kernels::AttentionCall>& calls);

// Returns the first layer in which a variant differs from the base, or n_layers. Both have the same number of layers.
int64_t fork_layer_of(const LayerWindows& base, const LayerWindows& variant);
// Returns the first row that reads other keys in one of them than in the other, or kernels::kNoLimit and more: rows
// before it are the same, in every layer.
int64_t first_different_row(const LayerWindows& base, const LayerWindows& variant);
// Returns the settings with which the first n_rows rows are computed: without the windows and the types that reach none
// of them.
LayerWindows settings_of_first_rows(const LayerWindows& windows, int64_t n_rows);

}  // namespace winnow::engine
