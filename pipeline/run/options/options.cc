#include "pipeline/run/options/options.h"

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/strings.h"
#include "kernels/cuda/cuda.h"
#include "pipeline/run/options/option_table.h"
#include "results/calibration/statistics.h"
#include "results/race/race.h"
#include "results/search/search.h"
#include "results/selection/pattern.h"
#include "results/selection/selection.h"

namespace winnow::run {
namespace {

// Fixes the rules of the window that an engine has (ARCHITECTURE.md, "The window"): hf, vllm and trtllm count the row
// itself in W and know no sinks; SWAA decodes with full attention, and its vLLM path sees one key more.
struct Target {
  std::string name;
  bool allows_sinks;
  bool decode_full;
  int64_t extra_keys;
};
const std::array<Target, 5>& targets() {
  static const std::array<Target, 5> kTargets = {{{"hf", false, false, 0},
                                                  {"vllm", false, false, 0},
                                                  {"trtllm", false, false, 0},
                                                  {"swaa-hf", true, true, 0},
                                                  {"swaa-vllm", true, true, 1}}};
  return kTargets;
}

const Target* find_target(const std::string& name) {
  const auto found =
      std::find_if(targets().begin(), targets().end(), [&](const Target& target) { return target.name == name; });
  return found == targets().end() ? nullptr : &*found;
}

[[noreturn]] void refuse(const std::string& what) { fail(ExitCode::kUsage, what); }

void require_at_least(const std::string& flag, int64_t value, int64_t least) {
  if (value >= least) return;
  refuse(flag + " is " + std::to_string(value) + ", expected at least " + std::to_string(least));
}

// "3,9": numbers of at least 1, rising and each once.
std::vector<int64_t> parse_numbers(const std::string& text, const std::string& flag, const std::string& example) {
  std::set<int64_t> numbers;
  std::stringstream list(text);
  for (std::string item; std::getline(list, item, ',');) {
    const auto number = parse_number(item);
    if (!number || *number < 1) {
      refuse(flag + ": \"" + item + "\" is no number of at least 1; expected for example " + example);
    }
    numbers.insert(*number);
  }
  if (numbers.empty() || text.ends_with(','))
    refuse(flag + ": \"" + text + "\" is no list; expected for example " + example);
  return {numbers.begin(), numbers.end()};
}

bool measures_types(const RunOptions& options) {
  return !options.kv.empty() && parse_kv_types(options.kv, "--kv") != std::vector{KvType::kStored};
}

bool decodes_full(const RunOptions& options) {
  if (const Target* target = find_target(options.target)) return target->decode_full;
  return options.decode.value_or("windowed") == "full";
}

void check_target(const RunOptions& options) {
  if (options.target.empty()) return;
  const Target& target = *find_target(options.target);
  if (!target.allows_sinks && options.sinks.value_or(0) != 0) {
    refuse("--sinks " + std::to_string(*options.sinks) + " contradicts --target " + target.name +
           ", which has no sink tokens; leave one of them out");
  }
  const std::string decode = target.decode_full ? "full" : "windowed";
  if (options.decode && *options.decode != decode) {
    refuse("--decode " + *options.decode + " contradicts --target " + target.name + ", which decodes " + decode +
           "; leave one of them out");
  }
}

void check_machine(const RunOptions& options) {
  if (options.max_memory_bytes().value_or(1) < 1) refuse("--max-memory is 0, expected at least 1");
  if (!(options.grace_seconds >= 0.0)) refuse("--grace must be 0 or more seconds");
  if (options.attention != "auto" && options.device == "cpu") {
    refuse("--attention " + options.attention +
           " chooses between kernels of a GPU, but --device is cpu; leave one out");
  }
  if (options.share_gpu && options.device == "cpu") {
    refuse("--share-gpu contradicts --device cpu; leave one of them out");
  }
}

// Heads are measured in one run with their layers, and in nothing but their NLL and matches.
void check_heads(const RunOptions& options) {
  if (options.exact && options.tail_rows) {
    refuse("--exact windows every row, which contradicts --tail-rows; leave one of them out");
  }
  if (!options.per_kv_head) return;
  const std::string flag = "--per-kv-head";
  if (options.base != "full") refuse("--base " + options.base + " is for layers; " + flag + " measures from full");
  if (!options.windows.empty() && parse_windows(options.windows, "--windows").size() > 1) {
    refuse("--windows measures layers under several windows, " + flag + " heads under one; give --window");
  }
  if (measures_types(options)) {
    refuse("--kv measures layers in several types, " + flag + " heads in one; leave it out, or leave out " + flag);
  }
  if (!resolve_signals(options).names.empty()) {
    refuse("--signals are of layers; leave them out, or measure them without " + flag + " in another --out");
  }
  if (options.per_token) refuse("--per-token keeps NLLs of layers; leave it out, or leave out " + flag);
}

void check_kv(const RunOptions& options) {
  if (!measures_types(options)) return;
  if (options.base != "full") {
    refuse("--base " + options.base + " is for keys and values as they are computed; leave it out, or leave out --kv");
  }
  if (!resolve_signals(options).names.empty()) {
    refuse(
        "--signals are measured with keys and values as they are computed; leave them out, or measure them without "
        "--kv in another --out");
  }
}

void check_race(const RunOptions& options) {
  if (options.until.empty()) {
    if (!options.until_budgets.empty()) refuse("--until-budgets needs --until, such as --until 95%");
    if (!options.until_tolerance.empty()) refuse("--until-tolerance needs --until, such as --until 95%");
    return;
  }
  race::parse_confidence(options.until, "--until");
  if (!options.until_tolerance.empty()) race::parse_tolerance(options.until_tolerance, "--until-tolerance");
  if (!options.until_budgets.empty()) parse_numbers(options.until_budgets, "--until-budgets", "3,9");
  if (options.base != "full")
    refuse("--until counts losses from full attention; leave --base " + options.base + " out");
  if (options.per_kv_head) {
    refuse("--until chooses among layers; leave --per-kv-head out, or measure heads without --until in another --out");
  }
}

void check_calibrate(const RunOptions& options) {
  if (options.base != "full" && options.base != "windowed" && options.base.rfind("list:", 0) != 0) {
    refuse("--base is \"" + options.base + "\", expected full, windowed or list: with layers, such as list:1,4,5");
  }
  std::set<std::string> names;
  for (const auto& [name, file] : options.controls) {
    if (!names.insert(name).second) refuse("--control " + name + " is given twice; names must differ");
  }
  resolve_signals(options);
  check_heads(options);
  check_kv(options);
  check_race(options);
  if (options.windows.empty()) return;
  const std::vector<int64_t> windows = parse_windows(options.windows, "--windows");
  if (options.window > 0 && std::ranges::find(windows, options.window) == windows.end()) {
    refuse("--window " + std::to_string(options.window) + " is none of --windows " + options.windows +
           "; add it there, or leave it out");
  }
  if (windows.size() == 1) return;
  if (options.base != "full") refuse("--base " + options.base + " is for one window; leave it out, or give --window");
  if (!resolve_signals(options).names.empty()) {
    refuse("--signals are measured with one window; leave them out, or measure them with --window in another --out");
  }
}

void check_search(const RunOptions& options) {
  const search::SearchMethod method = search::parse_search_method(options.method);
  const bool is_pairs = method == search::SearchMethod::kPairs;
  const bool is_plan = method == search::SearchMethod::kPlan;
  if (is_plan && options.from.empty()) {
    refuse("--method plan needs --from RUN_DIR, the run directory of calibrate --windows");
  }
  if (!options.keep && !is_plan) refuse("no --keep is given; name a number of layers, such as --keep 9");
  if (is_pairs && *options.keep < 2) {
    refuse("--keep is " + std::to_string(*options.keep) + ", expected at least 2 candidates");
  }
  if (options.verify.value_or(0) < 0) {
    refuse("--verify is " + std::to_string(*options.verify) + ", expected 0 or more patterns");
  }
  if (options.exact && options.tail_rows) {
    refuse("--exact windows every row, which contradicts --tail-rows; leave one of them out");
  }
  if (options.verify_examples && !options.verify) refuse("--verify-examples needs --verify");
  if (options.exact && options.verify) refuse("--exact leaves nothing to verify; leave --verify out");
  if (is_pairs && options.verify) refuse("--verify is for greedy searches; --exact measures pairs exactly");
  if (is_pairs && options.beam != 1) refuse("--beam is for greedy searches, not for pairs");
}

void check_evaluate(const RunOptions& options) {
  if (options.patterns.empty()) refuse("no --pattern is given; name at least one, such as --pattern periodic:4@0");
  if (options.generate > 0) return;
  if (!options.responses.empty()) refuse("--responses needs --generate N, which writes them");
  if (!options.stop_tokens.empty()) refuse("--stop-tokens needs --generate N");
}

}  // namespace

kernels::Window Settings::window_of(int64_t answer_start) const {
  kernels::Window window{.keys = window_keys, .sinks = sinks};
  if (tail_rows) window.first_row = answer_start - *tail_rows;
  if (decode_full) window.end_row = answer_start;
  return window;
}

std::string Variant::name() const {
  if (!windowed_heads.empty()) return selection::heads_name(windowed_heads, static_cast<int64_t>(windowed.size()));
  return window_keys.empty() ? selection::pattern_name(windowed) : selection::windows_name(window_keys, kv);
}

engine::LayerWindows Settings::layer_windows(const Variant& variant, const kernels::Window& window) const {
  engine::LayerWindows windows = layer_windows(variant.windowed, window);
  for (std::size_t layer = 0; layer < variant.window_keys.size(); ++layer) {
    if (variant.windowed[layer] && !rules.has_native(layer)) windows[layer].window.keys = variant.window_keys[layer];
  }
  const auto n_heads = static_cast<std::ptrdiff_t>(variant.windowed_heads.size() / windows.size());
  for (std::size_t layer = 0; n_heads > 0 && layer < windows.size(); ++layer) {
    if (!variant.windowed[layer] || rules.has_native(layer)) continue;
    const auto begin = variant.windowed_heads.begin() + static_cast<std::ptrdiff_t>(layer) * n_heads;
    windows[layer] = engine::with_heads(windows[layer], {begin, begin + n_heads});
  }
  for (std::size_t layer = 0; layer < variant.kv.size(); ++layer) {
    if (variant.kv[layer] == KvType::kStored) continue;
    windows[layer].kv = variant.kv[layer];
    windows[layer].kv_first_row = std::max<int64_t>(window.first_row, 0);
  }
  return windows;
}

std::vector<int64_t> Settings::windows() const {
  std::vector<int64_t> windows = {given_window};
  for (const int64_t keys : other_window_keys) windows.push_back(keys - (window_keys - given_window));
  std::ranges::sort(windows);
  return windows;
}

engine::Pattern Settings::variant(int64_t layer) const {
  engine::Pattern pattern = base;
  pattern[static_cast<std::size_t>(layer)] = !pattern[static_cast<std::size_t>(layer)];
  return pattern;
}

std::vector<LayerSetting> Settings::layer_settings() const {
  std::vector<LayerSetting> settings = {{given_window, window_keys}};
  for (const int64_t keys : other_window_keys) settings.push_back({keys - (window_keys - given_window), keys});
  const std::vector<LayerSetting> windowed = settings;
  for (const KvType type : kv_types) {
    for (const LayerSetting& setting : windowed) settings.push_back({setting.window, setting.keys, type});
    settings.push_back({.kv = type});
  }
  return settings;
}

std::vector<Variant> Settings::single_layers() const {
  const auto n_layers = static_cast<int64_t>(base.size());
  std::vector<Variant> variants;
  for (const LayerSetting& setting : layer_settings()) {
    const bool is_of_run = setting.keys == window_keys && setting.kv == KvType::kStored;
    for (int64_t l = 0; l < n_layers; ++l) {
      Variant single{.windowed = setting.keys > 0 ? variant(l) : base, .window_keys = {}};
      if (!is_of_run) single.window_keys.assign(base.size(), setting.keys);
      if (setting.kv != KvType::kStored) {
        single.kv.assign(base.size(), KvType::kStored);
        single.kv[static_cast<std::size_t>(l)] = setting.kv;
      }
      variants.push_back(std::move(single));
    }
  }
  if (!per_kv_head) return variants;
  const std::vector<Variant> heads = single_heads();
  variants.insert(variants.end(), heads.begin(), heads.end());
  return variants;
}

int64_t Settings::number_of_head(int64_t layer, int64_t head) const {
  const std::size_t n_of_layers = base.size() * layer_settings().size();
  return static_cast<int64_t>(n_of_layers) + layer * n_kv_heads + head;
}

std::vector<Variant> Settings::single_heads() const {
  std::vector<Variant> variants;
  for (std::size_t l = 0; l < base.size(); ++l) {
    for (std::size_t h = 0; h < static_cast<std::size_t>(n_kv_heads); ++h) {
      Variant& head = variants.emplace_back(Variant{.windowed = variant(static_cast<int64_t>(l)), .window_keys = {}});
      head.windowed_heads.assign(base.size() * static_cast<std::size_t>(n_kv_heads), false);
      head.windowed_heads[l * static_cast<std::size_t>(n_kv_heads) + h] = true;
    }
  }
  return variants;
}

bool Settings::affects(int64_t keys, int64_t n_tokens, int64_t answer_start) const {
  kernels::Window window = window_of(answer_start);
  window.keys = keys;
  // The last token predicts nothing: its row is not computed.
  return kernels::first_affected_row(window) < n_tokens - 1;
}

std::string kind_of(const RunOptions& options) {
  const bool has_kl = options.verb == Verb::kSearch && options.objective == "kl";
  return std::string(verb_name(options.verb)) + (has_kl ? " with KL" : "") + (options.from.empty() ? "" : " of plans");
}

std::optional<int64_t> RunOptions::max_memory_bytes() const {
  if (max_memory.empty()) return std::nullopt;
  return parse_bytes(max_memory, "--max-memory");
}

const std::vector<std::string>& target_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const Target& target : targets()) names.push_back(target.name);
    return names;
  }();
  return kNames;
}

void check_options(const RunOptions& options) {
  for (const Option* option : options_of(options.verb)) check_value(*option, options);
  if (options.window < 1 && options.windows.empty() && options.from.empty()) {
    refuse("--window is 0 or not given, expected at least 1" +
           std::string(options.verb == Verb::kCalibrate ? "; or give several with --windows 512,2048" : ""));
  }
  check_target(options);
  if (decodes_full(options) && options.tail_rows && *options.tail_rows == 0) {
    refuse(
        "--tail-rows 0 with answers decoded by full attention windows no row at all; use --tail-rows 1 or more, or "
        "--decode windowed");
  }
  check_machine(options);
  switch (options.verb) {
    case Verb::kCalibrate:
      return check_calibrate(options);
    case Verb::kSearch:
      return check_search(options);
    case Verb::kEvaluate:
      return check_evaluate(options);
  }
}

Settings resolve_window(const RunOptions& options) {
  Settings settings;
  const Target* target = find_target(options.target);
  const int64_t extra_keys = target != nullptr ? target->extra_keys : 0;
  std::vector<int64_t> windows = {1};  // of a search that has not read yet under which windows layers were measured
  if (!options.windows.empty()) windows = parse_windows(options.windows, "--windows");
  settings.given_window = std::min(options.window > 0 ? options.window : windows.front(), kernels::kNoLimit / 4);
  settings.window_keys = settings.given_window + extra_keys;
  for (const int64_t window : windows) {
    if (window != settings.given_window && !options.windows.empty())
      settings.other_window_keys.push_back(window + extra_keys);
  }
  if (!options.kv.empty()) settings.kv_types = parse_kv_types(options.kv, "--kv");
  std::erase(settings.kv_types, KvType::kStored);
  settings.sinks = std::min(options.sinks.value_or(0), kernels::kNoLimit / 4);
  settings.decode_full = decodes_full(options);
  settings.tail_rows = options.tail_rows;
  settings.per_kv_head = options.per_kv_head;
  const bool is_tail = options.verb == Verb::kSearch || options.per_kv_head;
  if (is_tail && !options.exact) settings.tail_rows = options.tail_rows.value_or(kSearchTailRows);
  return settings;
}

const std::vector<std::string>& signal_words() {
  static const std::vector<std::string> kWords = [] {
    std::vector<std::string> words;
    for (const SignalSpec& spec : signal_specs()) words.emplace_back(spec.name);
    words.insert(words.end(), {"all", "none"});
    return words;
  }();
  return kWords;
}

engine::SignalOptions resolve_signals(const RunOptions& options) {
  engine::SignalOptions signals;
  std::stringstream list(options.signals);
  for (std::string name; std::getline(list, name, ',');) {
    require_one_of("--signals", name, signal_words());
    for (const SignalSpec& spec : signal_specs()) {
      if (name == "all" || name == spec.name) signals.names.insert(spec.name);
    }
  }
  signals.removed_rows = options.tail_rows.value_or(kSensitivityTail);
  if (options.sensitivity && !signals.wants("sensitivity")) {
    refuse("--sensitivity needs the signal sensitivity; give --signals sensitivity, or leave it out");
  }
  if (options.sensitivity == "full") signals.removed_rows = engine::SignalOptions::kAllRows;
  const auto set_lazy = [&](const std::string& flag, const std::optional<int64_t>& value, int64_t least, auto member) {
    if (!value) return;
    if (!signals.wants("lazy")) refuse(flag + " needs the signal lazy; give --signals lazy, or leave it out");
    require_at_least(flag, *value, least);
    signals.lazy.*member = std::min(*value, kernels::kNoLimit / 4);
  };
  set_lazy("--lazy-sinks", options.lazy_sinks, 0, &engine::LazyWindow::sinks);
  set_lazy("--lazy-recent", options.lazy_recent, 1, &engine::LazyWindow::recent);
  set_lazy("--lazy-last", options.lazy_last, 1, &engine::LazyWindow::last);
  return signals;
}

Settings resolve_settings(const RunOptions& options, int64_t n_layers) {
  Settings settings = resolve_window(options);
  settings.base = selection::pattern_of_name(options.base, n_layers, "--base");
  settings.base_name = selection::pattern_name(settings.base);
  settings.signals = resolve_signals(options);
  settings.layers = selection::parse_layers(
      options.layers.empty() ? "0-" + std::to_string(n_layers - 1) : options.layers, n_layers, "--layers");
  if (options.top_k && *options.top_k > static_cast<int64_t>(settings.layers.size())) {
    refuse("--top-k is " + std::to_string(*options.top_k) + ", but only " + std::to_string(settings.layers.size()) +
           " layers are measured");
  }
  if (!options.until.empty()) race_budgets(options, static_cast<int64_t>(settings.layers.size()));
  return settings;
}

cuda::CudaOptions::Attention parse_attention(const std::string& name) {
  require_one_of("--attention", name, {"auto", "cudnn", "own", "hopper"});
  if (name == "cudnn") return cuda::CudaOptions::Attention::kCudnn;
  if (name == "hopper") return cuda::CudaOptions::Attention::kHopper;
  return name == "own" ? cuda::CudaOptions::Attention::kBuiltin : cuda::CudaOptions::Attention::kAuto;
}

std::vector<int64_t> race_budgets(const RunOptions& options, int64_t n_layers) {
  if (options.until_budgets.empty()) return calibration::budgets(n_layers, options.top_k.value_or(0));
  std::vector<int64_t> budgets = parse_numbers(options.until_budgets, "--until-budgets", "3,9");
  if (budgets.back() > n_layers) {
    refuse("--until-budgets has " + std::to_string(budgets.back()) + ", but only " + std::to_string(n_layers) +
           " layers are measured");
  }
  return budgets;
}

std::vector<int64_t> parse_windows(const std::string& text, const std::string& flag) {
  std::set<int64_t> windows;
  std::stringstream list(text);
  for (std::string item; std::getline(list, item, ',');) {
    const auto window = parse_number(item);
    if (!window || *window < 1) {
      refuse(flag + ": \"" + item + "\" is no window; expected numbers of at least 1 with commas, such as 512,2048");
    }
    if (!windows.insert(std::min(*window, kernels::kNoLimit / 4)).second) {
      refuse(flag + ": " + item + " is given twice; windows must differ");
    }
  }
  if (windows.empty() || text.ends_with(',')) {
    refuse(flag + ": \"" + text + "\" is no list of windows; expected for example 512,2048");
  }
  return {windows.begin(), windows.end()};
}

std::pair<std::string, std::filesystem::path> parse_control(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  const bool is_name =
      name.find_first_not_of('.') != std::string::npos && std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-';
      });
  if (equals == std::string::npos || equals + 1 == text.size() || !is_name) {
    refuse("--control: \"" + text + "\" is not NAME=FILE with a NAME of letters, digits, _ . -");
  }
  return {name, text.substr(equals + 1)};
}

}  // namespace winnow::run
