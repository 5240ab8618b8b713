#include "results/selection/pattern.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/random.h"
#include "base/strings.h"

namespace winnow::selection {
namespace {

constexpr const char* kWindows = "windows:";
constexpr const char* kHeads = "heads:";
constexpr char kOfType = '@';  // between a layer or a pattern and the type of its keys and values
constexpr const char* kForms =
    "full, windowed, periodic:K, periodic:K@O, first:K, last:K, random:K, random:SEED:K, list:1,4,5 or a selection "
    "FILE.json, and @fp8, @int8 or @int4 behind it for the type of keys and values";

[[noreturn]] void refuse(const std::string& what) { fail(ExitCode::kUsage, what); }

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> layers(static_cast<std::size_t>(end - begin));
  std::iota(layers.begin(), layers.end(), begin);
  return layers;
}

// One pattern of the command line: its text cut at the first colon.
struct Words {
  std::string kind;
  std::string rest;
  std::string text;
  std::string flag;

  [[noreturn]] void refuse_form(const std::string& expected) const {
    refuse(flag + ": \"" + text + "\" is no pattern; expected " + expected);
  }
  int64_t number(std::string_view part, int64_t low, int64_t high, const std::string& expected) const {
    const auto value = parse_number(part);
    if (!value || *value < low || *value > high) refuse_form(expected);
    return *value;
  }
};

std::vector<int64_t> parse_periodic(const Words& words, int64_t n_layers) {
  const std::string expected = "periodic:K or periodic:K@O with a period K from 1 to " + std::to_string(n_layers) +
                               " and an offset O from 0 to K - 1";
  const std::size_t at = words.rest.find('@');
  const int64_t period = words.number(words.rest.substr(0, at), 1, n_layers, expected);
  if (at == std::string::npos) return periodic_layers(period, 0, n_layers);
  return periodic_layers(period, words.number(words.rest.substr(at + 1), 0, period - 1, expected), n_layers);
}

std::vector<int64_t> parse_random(const Words& words, int64_t n_layers) {
  const std::string expected =
      "random:K or random:SEED:K with a SEED of at least 0 and K from 0 to " + std::to_string(n_layers) + " layers";
  const std::size_t colon = words.rest.find(':');
  const bool has_seed = colon != std::string::npos;
  const int64_t seed = has_seed ? words.number(words.rest.substr(0, colon), 0, INT64_MAX, expected) : 0;
  const int64_t keep = words.number(has_seed ? words.rest.substr(colon + 1) : words.rest, 0, n_layers, expected);
  return random_layers(static_cast<uint64_t>(seed), keep, n_layers);
}

// Rules that count take of the layers that can be chosen; a period and a list name layers by their number.
std::vector<int64_t> parse_built_in(const Words& words, const PatternModel& model) {
  const int64_t n_layers = model.n_layers;
  if (words.kind == "periodic") return parse_periodic(words, n_layers);
  if (words.kind == "list") return parse_layers(words.rest, n_layers, words.flag);
  std::vector<int64_t> layers = range(0, n_layers);
  std::erase_if(layers, [&](int64_t layer) {
    return std::ranges::find(model.native_layers, layer) != model.native_layers.end();
  });
  const auto n = static_cast<int64_t>(layers.size());
  const std::string count = words.kind + ":K with K from 0 to " + std::to_string(n) + " layers";
  std::vector<int64_t> chosen;
  if (words.kind == "random") {
    chosen = parse_random(words, n);
  } else if (words.kind == "first") {
    chosen = range(0, words.number(words.rest, 0, n, count));
  } else if (words.kind == "last") {
    chosen = range(n - words.number(words.rest, 0, n, count), n);
  } else {
    words.refuse_form(kForms);
  }
  for (int64_t& place : chosen) place = layers[static_cast<std::size_t>(place)];
  return chosen;
}

}  // namespace

Pattern pattern_with_full(const std::vector<int64_t>& full_layers, int64_t n_layers) {
  Pattern pattern(static_cast<std::size_t>(n_layers), true);
  for (const int64_t layer : full_layers) pattern[static_cast<std::size_t>(layer)] = false;
  return pattern;
}

std::string pattern_name(const Pattern& pattern) {
  if (std::none_of(pattern.begin(), pattern.end(), [](bool windowed) { return windowed; })) return "full";
  std::string list;
  for (std::size_t layer = 0; layer < pattern.size(); ++layer) {
    if (!pattern[layer]) list += (list.empty() ? "list:" : ",") + std::to_string(layer);
  }
  return list.empty() ? "windowed" : list;
}

Pattern pattern_of_name(const std::string& name, int64_t n_layers, const std::string& flag) {
  if (name == "full") return Pattern(static_cast<std::size_t>(n_layers), false);
  if (name == "windowed") return pattern_with_full({}, n_layers);
  const std::string prefix = "list:";
  if (name.rfind(prefix, 0) != 0) {
    refuse(flag + " is \"" + name + "\", expected full, windowed or list: with layers, such as list:1,4,5");
  }
  return pattern_with_full(parse_layers(name.substr(prefix.size()), n_layers, flag), n_layers);
}

std::string windows_name(const std::vector<int64_t>& windows, const std::vector<KvType>& kv) {
  std::string name;
  for (std::size_t layer = 0; layer < windows.size(); ++layer) {
    const int64_t keys = windows[layer];
    name += (name.empty() ? "" : ",") + (keys == 0 ? "full" : std::to_string(keys));
    if (!kv.empty() && kv[layer] != KvType::kStored) name += kOfType + std::string(kv_type_name(kv[layer]));
  }
  return kWindows + name;
}

bool is_windows_name(const std::string& name) { return name.starts_with(kWindows); }

LayerNames layers_of_name(const std::string& name, int64_t n_layers) {
  LayerNames layers;
  bool is_known = true;
  std::stringstream list(name.substr(std::min(name.size(), std::string(kWindows).size())));
  for (std::string item; std::getline(list, item, ',');) {
    const std::size_t at = item.find(kOfType);
    const auto type = at == std::string::npos ? KvType::kStored : find_kv_type(item.substr(at + 1));
    is_known = is_known && type.has_value();
    layers.kv.push_back(type.value_or(KvType::kStored));
    const std::string keys = item.substr(0, at);
    layers.windows.push_back(keys == "full" ? 0 : parse_number(keys).value_or(-1));
  }
  const auto is_stored = [](KvType type) { return type == KvType::kStored; };
  if (std::ranges::all_of(layers.kv, is_stored)) layers.kv.clear();
  const bool fits = is_known && std::ranges::all_of(layers.windows, [](int64_t keys) { return keys >= 0; });
  if (!fits || static_cast<int64_t>(layers.windows.size()) != n_layers ||
      windows_name(layers.windows, layers.kv) != name) {
    refuse("\"" + name + "\" does not name the windows of " + std::to_string(n_layers) + " layers");
  }
  return layers;
}

std::string heads_name(const std::vector<bool>& windowed_heads, int64_t n_layers) {
  const std::size_t n_heads = windowed_heads.size() / static_cast<std::size_t>(n_layers);
  std::string name = kHeads;
  for (std::size_t i = 0; i < windowed_heads.size(); ++i) {
    if (i > 0 && i % n_heads == 0) name += ',';
    name += windowed_heads[i] ? '0' : '1';
  }
  return name;
}

bool is_heads_name(const std::string& name) { return name.starts_with(kHeads); }

std::vector<bool> heads_of_name(const std::string& name, int64_t n_layers, int64_t n_kv_heads) {
  std::vector<bool> windowed_heads;
  for (const char digit : name.substr(std::min(name.size(), std::string(kHeads).size()))) {
    if (digit != ',') windowed_heads.push_back(digit == '0');
  }
  if (static_cast<int64_t>(windowed_heads.size()) != n_layers * n_kv_heads ||
      heads_name(windowed_heads, n_layers) != name) {
    refuse("\"" + name + "\" does not name the heads of " + std::to_string(n_layers) + " layers of " +
           std::to_string(n_kv_heads));
  }
  return windowed_heads;
}

Pattern windowed_layers(const std::vector<bool>& windowed_heads, int64_t n_layers) {
  const auto n_heads = static_cast<int64_t>(windowed_heads.size()) / n_layers;
  Pattern windowed;
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    const auto begin = windowed_heads.begin() + layer * n_heads;
    windowed.push_back(std::find(begin, begin + n_heads, true) != begin + n_heads);
  }
  return windowed;
}

std::vector<int64_t> periodic_layers(int64_t period, int64_t offset, int64_t n_layers) {
  std::vector<int64_t> layers;
  for (int64_t layer = offset; layer < n_layers; layer += period) layers.push_back(layer);
  return layers;
}

std::vector<int64_t> random_layers(uint64_t seed, int64_t keep, int64_t n_layers) {
  std::vector<int64_t> layers = range(0, n_layers);
  RandomStream random(seed, kSelectionStream, 0);
  random.shuffle(std::span<int64_t>(layers));
  layers.resize(static_cast<std::size_t>(keep));
  std::sort(layers.begin(), layers.end());
  return layers;
}

std::vector<int64_t> parse_layers(const std::string& text, int64_t n_layers, const std::string& flag) {
  std::set<int64_t> layers;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const std::size_t dash = item.find('-', 1);
    const auto first = parse_number(item.substr(0, dash));
    const auto last = dash == std::string::npos ? first : parse_number(item.substr(dash + 1));
    if (!first || !last || *first < 0 || *last < *first) {
      refuse(flag + ": \"" + item + "\" is no layer or range of layers; expected for example 0-11,20");
    }
    if (*last >= n_layers) {
      refuse(flag + ": layer " + std::to_string(*last) + " is out of range; the model has layers 0 to " +
             std::to_string(n_layers - 1));
    }
    for (int64_t layer = *first; layer <= *last; ++layer) layers.insert(layer);
    begin = end + 1;
  }
  return {layers.begin(), layers.end()};
}

namespace {

// A pattern without a type of keys and values.
NamedPattern parse_plain(const std::string& text, const PatternModel& model, const std::string& flag) {
  NamedPattern pattern;
  pattern.name = text;
  if (text.ends_with(".json")) {
    pattern.selection = read_selection(text);
    check_selection_model(*pattern.selection, text, model);
    pattern.full_layers = pattern.selection->layers;
    pattern.windows = pattern.selection->layer_windows;
    pattern.windowed_heads = pattern.selection->windowed_heads;
    const bool is_of_heads = pattern.selection->is_of_heads();
    pattern.name = pattern.selection->method + ":" +
                   std::to_string(is_of_heads ? pattern.selection->n_full_heads() : pattern.selection->keep);
    pattern.kv = pattern.selection->layer_kv;
  } else if (text == "full") {
    pattern.full_layers = range(0, model.n_layers);
  } else if (text != "windowed") {
    const std::size_t colon = text.find(':');
    const Words words{text.substr(0, colon), colon == std::string::npos ? "" : text.substr(colon + 1), text, flag};
    if (colon == std::string::npos) words.refuse_form(kForms);
    pattern.full_layers = parse_built_in(words, model);
    if (words.kind == "list") pattern.name = "list:" + joined(pattern.full_layers, ",");
  }
  pattern.windowed = pattern_with_full(pattern.full_layers, model.n_layers);
  return pattern;
}

}  // namespace

NamedPattern parse_pattern(const std::string& text, const PatternModel& model, const std::string& flag) {
  const std::size_t at = text.rfind(kOfType);
  const auto type = at == std::string::npos ? std::nullopt : find_kv_type(text.substr(at + 1));
  if (!type) return parse_plain(text, model, flag);
  NamedPattern pattern = parse_plain(text.substr(0, at), model, flag);
  if (!pattern.kv.empty()) {
    refuse(flag + ": " + text + ": the file says in which type each layer keeps its keys and values; leave out " +
           text.substr(at));
  }
  if (*type == KvType::kStored) return pattern;
  pattern.kv.assign(static_cast<std::size_t>(model.n_layers), *type);
  pattern.name += kOfType + std::string(kv_type_name(*type));
  return pattern;
}

}  // namespace winnow::selection
