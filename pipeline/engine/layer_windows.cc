#include "pipeline/engine/layer_windows.h"

#include <algorithm>

namespace winnow::engine {

namespace {

// The first row that reads rounded keys.
int64_t first_rounding_row(const LayerWindow& layer) {
  return layer.has_rounded_keys() ? layer.kv_first_row : kernels::kNoLimit;
}

}  // namespace

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

LayerWindow with_heads(const LayerWindow& layer, const std::vector<bool>& windowed_heads) {
  LayerWindow setting = layer;
  const auto n_windowed = std::count(windowed_heads.begin(), windowed_heads.end(), true);
  if (n_windowed == 0) {
    setting.window = kernels::full_attention();
  } else if (n_windowed < static_cast<int64_t>(windowed_heads.size())) {
    setting.windowed_heads = windowed_heads;
  }
  return setting;
}

void add_attention(const kernels::AttentionCall& call, const LayerWindow& setting,
                   std::vector<kernels::AttentionCall>& calls) {
  const std::vector<bool>& heads = setting.windowed_heads;
  if (heads.empty()) {
    calls.push_back(call);
    calls.back().window = setting.window;
    return;
  }
  for (auto begin = heads.begin(); begin != heads.end();) {
    const auto end = std::find(begin, heads.end(), !*begin);
    calls.push_back(call);
    calls.back().window = *begin ? setting.window : kernels::full_attention();
    calls.back().kv_heads = kernels::HeadRange{begin - heads.begin(), end - heads.begin()};
    begin = end;
  }
}

int64_t fork_layer_of(const LayerWindows& base, const LayerWindows& variant) {
  const auto difference = std::mismatch(base.begin(), base.end(), variant.begin());
  return difference.first - base.begin();
}

int64_t first_different_row(const LayerWindows& base, const LayerWindows& variant) {
  int64_t first = kernels::kNoLimit;
  for (std::size_t layer = 0; layer < base.size(); ++layer) {
    const LayerWindow& one = base[layer];
    const LayerWindow& other = variant[layer];
    if (one.rope != other.rope) return 0;
    // Rows before both are affected see everything in both, as it was computed.
    if (one.window != other.window || one.windowed_heads != other.windowed_heads) {
      first = std::min({first, kernels::first_affected_row(one.window), kernels::first_affected_row(other.window)});
    }
    if (one.kv != other.kv || one.kv_first_row != other.kv_first_row) {
      first = std::min({first, first_rounding_row(one), first_rounding_row(other)});
    }
  }
  return first;
}

LayerWindows settings_of_first_rows(const LayerWindows& windows, int64_t n_rows) {
  LayerWindows settings = windows;
  for (LayerWindow& layer : settings) {
    if (first_rounding_row(layer) >= n_rows) {
      layer.kv = KvType::kStored;
      layer.kv_first_row = 0;
    }
    if (kernels::first_affected_row(layer.window) < n_rows) continue;
    layer.window = kernels::full_attention();
    layer.windowed_heads.clear();
  }
  return settings;
}

}  // namespace winnow::engine
