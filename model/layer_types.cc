#include "model/layer_types.h"

#include <algorithm>

#include "base/json.h"
#include "model/families.h"

namespace winnow::model {
namespace {

using Json = ConfigFields::Json;

// layer_types, or empty where config.json has none: true for a sliding layer.
std::vector<bool> read_layer_types(const ConfigFields& fields, int64_t n_layers) {
  std::vector<bool> sliding;
  if (!fields.has("layer_types")) return sliding;
  const Json& types = fields.value("layer_types");
  const std::string expected = "a list of " + std::to_string(n_layers) + " names, full_attention or sliding_attention";
  if (!types.is_array() || types.size() != static_cast<std::size_t>(n_layers)) fields.refuse("layer_types", expected);
  for (const Json& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      fields.refuse("layer_types", expected + " (" + shown(type) + " is neither)");
    }
    sliding.push_back(type == "sliding_attention");
  }
  return sliding;
}

// Which layers have positions, 1 or 0 each: no_rope_layers, or all but each so-many-th.
std::vector<bool> layers_with_positions(const ConfigFields& fields, int64_t n_layers) {
  std::vector<bool> turning;
  if (!fields.has("no_rope_layers")) {
    const int64_t interval = fields.size("no_rope_layer_interval", 4);
    for (int64_t layer = 0; layer < n_layers; ++layer) turning.push_back((layer + 1) % interval != 0);
    return turning;
  }
  const Json& list = fields.value("no_rope_layers");
  const std::string expected =
      "a list of " + std::to_string(n_layers) + " numbers, 1 for a layer with positions, else 0";
  if (!list.is_array() || list.size() != static_cast<std::size_t>(n_layers)) fields.refuse("no_rope_layers", expected);
  for (const Json& value : list) {
    if (value != 0 && value != 1) fields.refuse("no_rope_layers", expected);
    turning.push_back(value == 1);
  }
  return turning;
}

// The base of each layer's rotary embedding, 0 where it has none: layer_rope_theta, or empty where there is no such
// list.
std::vector<double> read_layer_thetas(const ConfigFields& fields, int64_t n_layers) {
  const char* key = "layer_rope_theta";
  std::vector<double> thetas;
  if (!fields.has(key)) return thetas;
  const Json& list = fields.value(key);
  const std::string expected =
      "a list of " + std::to_string(n_layers) + " numbers, the base of a layer's rotary embedding or 0 for none";
  if (!list.is_array() || list.size() != static_cast<std::size_t>(n_layers)) fields.refuse(key, expected);
  for (const Json& theta : list) {
    const bool fits = theta.is_number() && theta.get<double>() >= 0.0 && theta.get<double>() <= 1e30;
    if (!fits) fields.refuse(key, expected);
    thetas.push_back(theta.get<double>());
  }
  return thetas;
}

// The rotary embeddings of layers that each have a base of their own, all else as in `shared`.
void set_ropes_by_theta(const std::vector<double>& thetas, const RopeConfig& shared, ModelConfig& config) {
  std::vector<double> known;
  config.ropes.clear();
  for (std::size_t layer = 0; layer < thetas.size(); ++layer) {
    const auto found = std::ranges::find(known, thetas[layer]);
    config.layer_ropes[layer] = static_cast<int32_t>(found - known.begin());
    if (found != known.end()) continue;
    known.push_back(thetas[layer]);
    RopeConfig& rope = config.ropes.emplace_back();
    rope.type = RopeConfig::Type::kNone;
    if (thetas[layer] == 0.0) continue;
    rope = shared;
    rope.theta = thetas[layer];
  }
}

// Layers of Qwen2 and those after it, whose windows are behind a switch.
std::vector<bool> switched_window_layers(const ConfigFields& fields, const ModelConfig& config, bool is_on) {
  const Family& family = *config.family;
  std::vector<bool> layers = read_layer_types(fields, config.n_layers);
  if (layers.empty() && family.positions == Positions::kNoneOnSome) {
    layers = layers_with_positions(fields, config.n_layers);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) layers[layer] = is_on && !layers[layer];
  } else if (layers.empty()) {
    const int64_t first = fields.integer("max_window_layers", family.defaults.max_window_layers, 0);
    for (int64_t layer = 0; layer < config.n_layers; ++layer) layers.push_back(is_on && layer >= first);
  }
  if (!is_on && std::ranges::find(layers, true) != layers.end()) {
    fields.refuse("layer_types", "no sliding_attention where use_sliding_window or sliding_window is off");
  }
  return layers;
}

// Layers of Gemma and those like it: all but each so-many-th.
std::vector<bool> pattern_window_layers(const ConfigFields& fields, const ModelConfig& config, bool is_on) {
  const Family& family = *config.family;
  std::vector<bool> layers = read_layer_types(fields, config.n_layers);
  if (!layers.empty()) return layers;
  int64_t period = family.full_period;
  if (family.does_read("sliding_window_pattern") && fields.has("sliding_window_pattern")) {
    const Json& pattern = fields.value("sliding_window_pattern");
    // EXAONE writes it as letters, L for a layer with a window and G for one without.
    if (pattern.is_string()) {
      const std::string letters = pattern.get<std::string>();
      if (letters.empty() || letters.find_first_not_of("LG") != std::string::npos) {
        fields.refuse("sliding_window_pattern", "a number, or letters L and G");
      }
      for (int64_t layer = 0; layer < config.n_layers; ++layer) {
        layers.push_back(is_on && letters[static_cast<std::size_t>(layer) % letters.size()] == 'L');
      }
      return layers;
    }
    period = fields.integer("sliding_window_pattern", period, 0);
  }
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    layers.push_back(is_on && period > 0 && (family.full_first ? layer : layer + 1) % period != 0);
  }
  return layers;
}

}  // namespace

void read_native_window(const ConfigFields& fields, ModelConfig& config) {
  const Family& family = *config.family;
  const NativeWindow rule = family.native_window;
  const bool is_null = !fields.is_absent("sliding_window") && !fields.has("sliding_window");
  const bool is_absent = fields.is_absent("sliding_window") && family.defaults.sliding_window == 0;
  bool is_on = rule != NativeWindow::kNever && !is_null && !is_absent;
  if (family.does_read("use_sliding_window")) is_on = fields.boolean("use_sliding_window", false) && is_on;
  int64_t window = 0;
  if (is_on) window = fields.size("sliding_window", family.defaults.sliding_window);
  std::vector<bool> layers;
  if (rule == NativeWindow::kByLayer) {
    is_on = fields.boolean("use_sliding_window", false) && is_on;
    layers = switched_window_layers(fields, config, is_on);
  } else if (rule == NativeWindow::kPattern) {
    layers = pattern_window_layers(fields, config, is_on);
    if (!is_on && std::ranges::find(layers, true) != layers.end()) {
      fields.refuse("layer_types", "no sliding_attention where sliding_window is null");
    }
  } else {
    layers.assign(static_cast<std::size_t>(config.n_layers), is_on);
    // Transformers ignores layer_types in these families, other engines do not: it must say the same.
    const std::vector<bool> stated = read_layer_types(fields, config.n_layers);
    if (!stated.empty() && stated != layers) {
      fields.refuse("layer_types", is_on ? "sliding_attention in every layer, as Transformers applies sliding_window"
                                         : "full_attention in every layer, as Transformers runs this model");
    }
  }
  if (std::ranges::find(layers, true) == layers.end()) return;
  config.native_window = window;
  config.native_window_layers = std::move(layers);
}

void read_positions(const ConfigFields& fields, ModelConfig& config) {
  const Family& family = *config.family;
  const auto n_layers = static_cast<std::size_t>(config.n_layers);
  const auto read = [&](const std::string& layer_type) {
    return read_rope(fields, family, config.heads.head_dim, config.max_positions, layer_type);
  };
  config.layer_ropes.assign(n_layers, 0);
  const auto without_positions_where = [&](const std::vector<bool>& turning) {
    // Like the other in all else, so that a layer's weights are in the order of both.
    config.ropes.push_back(config.ropes.front());
    config.ropes.back().type = RopeConfig::Type::kNone;
    for (std::size_t layer = 0; layer < n_layers; ++layer) config.layer_ropes[layer] = turning[layer] ? 0 : 1;
  };
  const std::vector<bool>& windowed = config.native_window_layers;
  switch (family.positions) {
    case Positions::kSame:
      config.ropes = {read("")};
      break;
    case Positions::kByLayerType:
      config.ropes = {read("full_attention"), read("sliding_attention")};
      config.windowed_rope = 1;
      for (std::size_t layer = 0; layer < windowed.size(); ++layer) config.layer_ropes[layer] = windowed[layer] ? 1 : 0;
      break;
    case Positions::kNoneOnFull:
      config.ropes = {read("")};
      // Without any windows EXAONE 4 has positions everywhere, Cohere 2 nowhere.
      if (config.native_window || family.none_without_windows) {
        config.windowed_rope = 0;
        without_positions_where(windowed.empty() ? std::vector<bool>(n_layers, false) : windowed);
      }
      break;
    case Positions::kNoneOnSome:
      config.ropes = {read("")};
      without_positions_where(layers_with_positions(fields, config.n_layers));
      break;
    case Positions::kThetaByLayer: {
      config.ropes = {read("")};
      const std::vector<double> thetas = read_layer_thetas(fields, config.n_layers);
      if (!thetas.empty()) set_ropes_by_theta(thetas, RopeConfig(config.ropes.front()), config);
      break;
    }
  }
}

}  // namespace winnow::model
