#include "results/serving/request.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::serving {

void Request::refuse(const std::string& why) const {
  fail(ExitCode::kBadData, source.origin + ": cannot be exported to " + options.target + ": " + why);
}

bool Request::is_true(const char* key) const {
  return config.contains(key) && config[key].is_boolean() && config[key].get<bool>();
}

int64_t Request::n_windowed() const {
  return std::ranges::count_if(windows, [](const auto& window) { return window.is_windowed(); });
}

bool Request::has_several_windows() const {
  std::optional<int64_t> keys;
  for (const evaluation::ServedWindow& window : windows) {
    if (!window.is_windowed()) continue;
    if (keys.value_or(window.keys) != window.keys) return true;
    keys = window.keys;
  }
  return false;
}

int64_t Request::one_window() const {
  std::optional<int64_t> keys;
  for (const evaluation::ServedWindow& window : windows) {
    if (!window.is_windowed()) continue;
    if (keys.value_or(window.keys) != window.keys) {
      const auto is_plugin = [](const EngineRow* row) { return row->route == Route::kPlugin; };
      const bool has_plugin = std::ranges::any_of(rows_of(*engine, model_type), is_plugin);
      const std::string advice = has_plugin ? "; --model-impl plugin has one for each layer" : "";
      refuse("its windowed layers see " + std::to_string(*keys) + " and " + std::to_string(window.keys) +
             " keys, and " + engine_title() + " has one window for all of them" + advice);
    }
    keys = window.keys;
  }
  return keys.value_or(selection.window_keys);
}

int64_t Request::max_seq_len() const {
  if (options.max_seq_len) return *options.max_seq_len;
  const auto field = config.find("max_position_embeddings");
  if (field != config.end() && field->is_number_integer()) return field->get<int64_t>();
  refuse("config.json has no max_position_embeddings; give --max-seq-len");
}

Json Request::layer_types() const {
  Json types = Json::array();
  for (const evaluation::ServedWindow& window : windows) {
    types.push_back(window.is_windowed() ? "sliding_attention" : "full_attention");
  }
  return types;
}

KvType Request::kv_type() const {
  const auto narrower = std::ranges::find_if(selection.layer_kv, [](KvType type) { return type != KvType::kStored; });
  return narrower == selection.layer_kv.end() ? KvType::kStored : *narrower;
}

}  // namespace winnow::serving
