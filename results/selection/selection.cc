#include "results/selection/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/own_files.h"
#include "base/text_file.h"
#include "base/utf8.h"
#include "results/selection/pattern.h"

namespace winnow::selection {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{4} << 20;
constexpr int64_t kMaxLayers = 10'000;  // as model/config.cc

// The keys of a selection: every refusal names file, key, expected and found.
class Fields {
 public:
  Fields(const nlohmann::json& object, const std::string& origin, const std::string& advice)
      : object_(object), origin_(origin), advice_(advice) {}

  [[noreturn]] void refuse(const char* key, const std::string& expected) const {
    const auto found = object_.find(key);
    fail(ExitCode::kBadData, origin_ + ": " + key + ": expected " + expected + ", found " +
                                 (found == object_.end() ? "no such key" : shown(*found)) + "; " + advice_);
  }

  const nlohmann::json& value(const char* key, const char* expected) const {
    const auto found = object_.find(key);
    if (found == object_.end()) refuse(key, expected);
    return *found;
  }

  std::string text(const char* key) const {
    const nlohmann::json& json = value(key, "a string");
    if (!json.is_string()) refuse(key, "a string");
    return json.get<std::string>();
  }

  std::vector<std::string> texts(const char* key) const {
    const nlohmann::json& list = value(key, "a list of strings");
    const auto is_text = [](const nlohmann::json& item) { return item.is_string(); };
    if (!list.is_array() || !std::ranges::all_of(list, is_text)) refuse(key, "a list of strings");
    return list.get<std::vector<std::string>>();
  }

  int64_t integer(const char* key, int64_t low, int64_t high) const {
    const std::string expected = "a whole number from " + std::to_string(low) + " to " + std::to_string(high);
    const nlohmann::json& json = value(key, expected.c_str());
    const bool is_small_enough = !json.is_number_unsigned() || json.get<uint64_t>() <= static_cast<uint64_t>(high);
    if (!json.is_number_integer() || !is_small_enough) refuse(key, expected);
    const auto number = json.get<int64_t>();
    if (number < low || number > high) refuse(key, expected);
    return number;
  }

 private:
  const nlohmann::json& object_;
  const std::string& origin_;
  const std::string& advice_;
};

// Layers are rising; `expected` is for messages.
std::vector<int64_t> read_list(const Fields& fields, const char* key, int64_t n_layers, const std::string& expected) {
  const nlohmann::json& list = fields.value(key, expected.c_str());
  if (!list.is_array()) fields.refuse(key, expected);
  std::vector<int64_t> layers;
  for (const nlohmann::json& item : list) {
    const bool is_layer = item.is_number_unsigned() && item.get<uint64_t>() < static_cast<uint64_t>(n_layers);
    if (!is_layer || (!layers.empty() && item.get<int64_t>() <= layers.back())) fields.refuse(key, expected);
    layers.push_back(item.get<int64_t>());
  }
  return layers;
}

std::vector<int64_t> read_layers(const Fields& fields, int64_t keep, int64_t n_layers) {
  const std::string expected =
      std::to_string(keep) + " rising layer indices from 0 to " + std::to_string(n_layers - 1) + " (keep, n_layers)";
  const std::vector<int64_t> layers = read_list(fields, "layers", n_layers, expected);
  if (static_cast<int64_t>(layers.size()) != keep) fields.refuse("layers", expected);
  return layers;
}

// Keys that only a model with windows of its own has.
void read_native(const Fields& fields, const nlohmann::json& json, Selection& s) {
  if (json.contains("native_window_layers")) {
    const char* key = "native_window_layers";
    const std::string expected =
        "rising layer indices from 0 to " + std::to_string(s.n_layers - 1) + ", none of them in layers";
    s.native_layers = read_list(fields, key, s.n_layers, expected);
    const auto keeps = [&](int64_t layer) { return s.has_native_window(layer); };
    if (std::ranges::any_of(s.layers, keeps)) fields.refuse(key, expected);
    s.native_window = fields.integer("native_window", 1, kLargestWindow);
  }
  if (!json.contains("positions")) return;
  s.positions = fields.text("positions");
  if (s.positions != kByType) fields.refuse("positions", quote(kByType));
}

// The windows of a plan agree with the layers that keep full attention, and with the windows that layers have anyway.
void read_layer_windows(const Fields& fields, Selection& s) {
  const char* key = "layer_windows";
  const std::string expected =
      "for each of " + std::to_string(s.n_layers) + " layers the keys that it sees, null for those in layers";
  const nlohmann::json& list = fields.value(key, expected.c_str());
  if (!list.is_array() || static_cast<int64_t>(list.size()) != s.n_layers) fields.refuse(key, expected);
  const Pattern windowed = s.windowed();
  for (std::size_t layer = 0; layer < list.size(); ++layer) {
    const nlohmann::json& keys = list[layer];
    const bool is_window = keys.is_number_unsigned() && keys.get<uint64_t>() >= 1 &&
                           keys.get<uint64_t>() <= static_cast<uint64_t>(kLargestWindow + 1);
    if (windowed[layer] ? !is_window : !keys.is_null()) fields.refuse(key, expected);
    s.layer_windows.push_back(windowed[layer] ? keys.get<int64_t>() : 0);
    if (s.has_native_window(static_cast<int64_t>(layer)) && s.layer_windows.back() != s.native_window) {
      fields.refuse(key, std::to_string(s.native_window) + " for the layers of native_window_layers");
    }
  }
}

// The heads agree with the layers that keep full attention in all of them, and with the windows that layers have
// anyway.
void read_heads(const Fields& fields, Selection& s) {
  s.n_kv_heads = fields.integer("kv_heads", 1, kMaxLayers);
  const std::string heads_of = " of " + std::to_string(s.n_layers) + " layers ";
  const std::string expected = "for each" + heads_of + "the rising key heads below " + std::to_string(s.n_kv_heads) +
                               " that keep full attention, all of them in layers, none with a native window";
  const nlohmann::json& full = fields.value("full_kv_heads", expected.c_str());
  const std::string expected_deltas = "for each" + heads_of + std::to_string(s.n_kv_heads) + " numbers, or null";
  const nlohmann::json& deltas = fields.value("kv_head_delta_nll", expected_deltas.c_str());
  const auto n_layers = static_cast<std::size_t>(s.n_layers);
  const auto n_heads = static_cast<std::size_t>(s.n_kv_heads);
  if (!full.is_array() || full.size() != n_layers) fields.refuse("full_kv_heads", expected);
  if (!deltas.is_array() || deltas.size() != n_layers) fields.refuse("kv_head_delta_nll", expected_deltas);
  const Pattern windowed = s.windowed();
  for (std::size_t layer = 0; layer < n_layers; ++layer) {
    std::vector<bool> has_window(n_heads, true);
    int64_t before = -1;
    if (!full[layer].is_array()) fields.refuse("full_kv_heads", expected);
    for (const nlohmann::json& item : full[layer]) {
      const bool is_head = item.is_number_unsigned() && item.get<uint64_t>() < n_heads;
      if (!is_head || item.get<int64_t>() <= before) fields.refuse("full_kv_heads", expected);
      before = item.get<int64_t>();
      has_window[static_cast<std::size_t>(before)] = false;
    }
    const bool is_whole = full[layer].size() == n_heads;
    const bool is_native = s.has_native_window(static_cast<int64_t>(layer));
    if (is_whole == windowed[layer] || (is_native && !full[layer].empty())) fields.refuse("full_kv_heads", expected);
    s.windowed_heads.insert(s.windowed_heads.end(), has_window.begin(), has_window.end());
    const bool is_measured = deltas[layer].is_array() && deltas[layer].size() == n_heads;
    const auto is_number = [](const nlohmann::json& value) { return value.is_number(); };
    if (!deltas[layer].is_null() && (!is_measured || !std::ranges::all_of(deltas[layer], is_number))) {
      fields.refuse("kv_head_delta_nll", expected_deltas);
    }
    for (std::size_t head = 0; head < n_heads; ++head) {
      s.head_delta_nll.push_back(is_measured ? deltas[layer][head].get<double>()
                                             : std::numeric_limits<double>::quiet_NaN());
    }
  }
}

void write_heads(const Selection& s, nlohmann::ordered_json& object) {
  object["kv_heads"] = s.n_kv_heads;
  object["keep_kv_heads"] = s.n_full_heads();
  object["full_kv_heads"] = nlohmann::ordered_json::array();
  object["kv_head_delta_nll"] = nlohmann::ordered_json::array();
  for (int64_t layer = 0; layer < s.n_layers; ++layer) {
    nlohmann::ordered_json full = nlohmann::ordered_json::array();
    nlohmann::ordered_json deltas = nlohmann::ordered_json::array();
    for (int64_t head = 0; head < s.n_kv_heads; ++head) {
      const auto place = static_cast<std::size_t>(layer * s.n_kv_heads + head);
      if (!s.windowed_heads[place]) full.push_back(head);
      deltas.push_back(s.head_delta_nll[place]);
    }
    const bool is_measured = !std::isnan(s.head_delta_nll[static_cast<std::size_t>(layer * s.n_kv_heads)]);
    object["full_kv_heads"].push_back(std::move(full));
    object["kv_head_delta_nll"].push_back(is_measured ? std::move(deltas) : nlohmann::ordered_json(nullptr));
  }
}

void read_layer_kv(const Fields& fields, Selection& s) {
  const char* key = "layer_kv";
  const std::string expected = "for each of " + std::to_string(s.n_layers) +
                               " layers the type of its keys and values: \"bf16\", \"fp8\", \"int8\" or \"int4\"";
  const std::vector<std::string> names = fields.texts(key);
  if (static_cast<int64_t>(names.size()) != s.n_layers) fields.refuse(key, expected);
  for (const std::string& name : names) {
    const auto type = find_kv_type(name);
    if (!type) fields.refuse(key, expected);
    s.layer_kv.push_back(*type);
  }
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// In the file's own order, which the sorted objects of parse_json have lost.
storage::Provenance parse_provenance(const Fields& fields, const std::string& text) {
  const char* expected = "an object of strings and numbers";
  if (!fields.value("provenance", expected).is_object()) fields.refuse("provenance", expected);
  const nlohmann::ordered_json object = parse_ordered_json(text, "selection").at("provenance");
  storage::Provenance provenance;
  for (const auto& [name, value] : object.items()) {
    if (value.is_string()) {
      provenance.set(name, value.get<std::string>(), "");
    } else if (value.is_number_integer()) {
      provenance.set(name, value.get<int64_t>(), "");
    } else if (value.is_number()) {
      provenance.set(name, value.get<double>(), "");
    } else {
      fields.refuse("provenance", expected);
    }
  }
  return provenance;
}

void require_one_of(const Fields& fields, const char* key, const std::string& value,
                    std::initializer_list<const char*> allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string list;
  for (const char* name : allowed) list += (list.empty() ? "\"" : ", \"") + std::string(name) + "\"";
  fields.refuse(key, "one of " + list);
}

}  // namespace

Pattern Selection::windowed() const { return pattern_with_full(layers, n_layers); }

std::vector<evaluation::ServedWindow> Selection::windows() const {
  const evaluation::ServedWindow of_windowed{
      .keys = window_keys, .sinks = sinks, .decode_full = decode == "full", .tail_rows = tail_rows};
  std::vector<int64_t> native(native_layers.empty() ? 0 : static_cast<std::size_t>(n_layers), 0);
  for (const int64_t layer : native_layers) native[static_cast<std::size_t>(layer)] = native_window;
  std::vector<evaluation::ServedWindow> windows = evaluation::served_windows_of(windowed(), of_windowed, native);
  for (std::size_t layer = 0; layer < layer_windows.size(); ++layer) {
    if (layer_windows[layer] > 0) windows[layer].keys = layer_windows[layer];
  }
  for (std::size_t head = 0; head < windowed_heads.size(); ++head) {
    evaluation::ServedWindow& of_layer = windows[head / static_cast<std::size_t>(n_kv_heads)];
    if (of_layer.is_windowed() && !windowed_heads[head]) of_layer.full_share += 1.0 / static_cast<double>(n_kv_heads);
  }
  for (std::size_t layer = 0; layer < layer_kv.size(); ++layer) windows[layer].kv = layer_kv[layer];
  return windows;
}

int64_t Selection::n_full_heads() const { return std::ranges::count(windowed_heads, false); }

bool Selection::has_native_window(int64_t layer) const {
  return std::ranges::find(native_layers, layer) != native_layers.end();
}

std::string to_json(const Selection& selection) {
  const bool is_plan = !selection.layer_windows.empty();
  const bool has_types = !selection.layer_kv.empty();
  const int64_t version = selection.is_of_heads() ? kHeadsVersion
                          : has_types             ? kTypedPlanVersion
                          : is_plan               ? kPlanVersion
                                                  : kSelectionVersion;
  nlohmann::ordered_json object = {{"format", kSelectionFormat}, {"format_version", version}};
  object["method"] = selection.method;
  object["keep"] = selection.keep;
  object["layers"] = selection.layers;
  object["n_layers"] = selection.n_layers;
  if (is_plan) {
    object["layer_windows"] = nlohmann::ordered_json::array();
    for (const int64_t keys : selection.layer_windows) {
      object["layer_windows"].push_back(keys > 0 ? nlohmann::ordered_json(keys) : nlohmann::ordered_json(nullptr));
    }
  }
  if (selection.is_of_heads()) write_heads(selection, object);
  if (has_types) object["layer_kv"] = names_of(selection.layer_kv);
  object["window"] = selection.window;
  object["window_keys"] = selection.window_keys;
  object["sinks"] = selection.sinks;
  object["decode"] = selection.decode;
  object["tail_rows"] = selection.tail_rows;
  object["target"] = selection.target;
  if (!selection.native_layers.empty()) {
    object["native_window"] = selection.native_window;
    object["native_window_layers"] = selection.native_layers;
  }
  if (!selection.positions.empty()) object["positions"] = selection.positions;
  object["model"] = to_utf8(selection.model);
  if (!is_utf8(selection.model)) object["model_encoded"] = encoded_path(selection.model);
  object["model_type"] = selection.model_type;
  object["checkpoint_sha256"] = selection.checkpoint_sha256;
  if (!selection.token_hashes.empty()) object["token_hashes"] = selection.token_hashes;
  object["provenance"] = nlohmann::ordered_json::object();
  for (const storage::ProvenanceEntry& entry : selection.provenance.entries()) {
    std::visit([&](const auto& value) { object["provenance"][entry.name] = value; }, entry.value);
  }
  object[kChecksumKey] = json_checksum(nlohmann::json(object));
  const auto dump = [](const nlohmann::ordered_json& value) { return json_text(value, -1); };
  std::string text = "{";
  for (const auto& [key, value] : object.items()) {
    text += std::string(text.size() > 1 ? "," : "") + "\n  " + dump(key) + ": ";
    // Objects are the only values that may be long: a line for each of their members.
    if (!value.is_object() || value.empty()) {
      text += dump(value);
      continue;
    }
    std::string members;
    for (const auto& [name, member] : value.items()) {
      members += std::string(members.empty() ? "{" : ",") + "\n    " + dump(name) + ": " + dump(member);
    }
    text += members + "\n  }";
  }
  return text + "\n}\n";
}

void write_selection(const std::filesystem::path& path, const Selection& selection) {
  write_file_atomically(path, to_json(selection));
}

Selection parse_selection(const std::string& text, const std::string& origin, const std::string& advice) {
  const nlohmann::json json = parse_json(text, origin);
  if (!json.is_object())
    fail(ExitCode::kBadData, origin + ": expected a selection, a JSON object; found " + shown(json));
  const Fields fields(json, origin, advice);
  if (!json.contains("format") || json["format"] != kSelectionFormat) {
    fields.refuse("format", quote(kSelectionFormat));
  }
  const std::string versions =
      std::to_string(kSelectionVersion) + " to " + std::to_string(kHeadsVersion) + " (which this winnow reads)";
  if (!json.contains("format_version") || !json["format_version"].is_number_integer()) {
    fields.refuse("format_version", versions);
  }
  const nlohmann::json& version = json["format_version"];
  if (version < kSelectionVersion || version > kHeadsVersion) fields.refuse("format_version", versions);
  Selection s;
  s.method = fields.text("method");
  // It is a pattern's name in tables.
  const bool has_control =
      std::any_of(s.method.begin(), s.method.end(), [](unsigned char c) { return c < 32 || c == 127; });
  if (s.method.empty() || has_control) fields.refuse("method", "the name of a method on one line");
  s.n_layers = fields.integer("n_layers", 1, kMaxLayers);
  s.keep = fields.integer("keep", 0, s.n_layers);
  s.layers = read_layers(fields, s.keep, s.n_layers);
  s.window = fields.integer("window", 1, kLargestWindow);
  s.window_keys = fields.integer("window_keys", 1, kLargestWindow + 1);
  s.sinks = fields.integer("sinks", 0, kLargestWindow);
  s.decode = fields.text("decode");
  require_one_of(fields, "decode", s.decode, {"windowed", "full"});
  s.tail_rows = fields.integer("tail_rows", -1, INT64_MAX);
  s.target = fields.text("target");
  require_one_of(fields, "target", s.target, {"", "hf", "vllm", "trtllm", "swaa-hf", "swaa-vllm"});
  read_native(fields, json, s);
  if (version == kPlanVersion || version == kTypedPlanVersion) read_layer_windows(fields, s);
  if (version == kTypedPlanVersion) read_layer_kv(fields, s);
  if (version == kHeadsVersion) read_heads(fields, s);
  const int64_t window_keys = s.window + (s.target == "swaa-vllm" ? 1 : 0);
  if (s.window_keys != window_keys) {
    fields.refuse("window_keys", std::to_string(window_keys) + " for this window and target");
  }
  s.model = json.contains("model_encoded") ? decoded_path(fields.text("model_encoded")) : fields.text("model");
  s.model_type = fields.text("model_type");
  s.checkpoint_sha256 = fields.text("checkpoint_sha256");
  if (!is_sha256(s.checkpoint_sha256)) fields.refuse("checkpoint_sha256", "64 hexadecimal digits");
  if (json.contains("token_hashes")) s.token_hashes = fields.texts("token_hashes");
  s.provenance = parse_provenance(fields, text);
  // Last: of a value that cannot be, its key says more.
  s.has_checksum =
      check_json(json, origin, advice + "; after a change on purpose, delete that key") == Checksum::kMatches;
  return s;
}

Selection read_selection(const std::filesystem::path& path) {
  return parse_selection(read_text(path, kMaxFileBytes), path.string());
}

void check_selection_model(const Selection& selection, const std::string& origin, const PatternModel& model) {
  if (selection.n_layers != model.n_layers) {
    fail(ExitCode::kConfigMismatch, origin + ": made for a model of " + std::to_string(selection.n_layers) +
                                        " layers (" + selection.model + "), this one has " +
                                        std::to_string(model.n_layers) + "; select for this model");
  }
  if (model.checkpoint_sha256.empty() || selection.checkpoint_sha256 == model.checkpoint_sha256) return;
  fail(ExitCode::kConfigMismatch,
       origin + ": made for the checkpoint with SHA-256 " + selection.checkpoint_sha256.substr(0, 16) + "... (" +
           selection.model + "), this one has " + model.checkpoint_sha256.substr(0, 16) + "...; select for this model");
}

Output selection_output(const std::string& flag, const std::filesystem::path& path) {
  return {.flag = flag, .path = path, .what = "a selection", .is_own = [](const std::filesystem::path& old) {
            return is_own_json(old, kSelectionFormat);
          }};
}

}  // namespace winnow::selection
