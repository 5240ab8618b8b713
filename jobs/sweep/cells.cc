#include "jobs/sweep/cells.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "base/yaml_file.h"
#include "pipeline/run/options/option_table.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

// A layer list is made canonical without looking at the model; no model has more layers.
constexpr int64_t kMostLayers = 4096;
constexpr std::size_t kLongestSlug = 80;
constexpr double kMostCells = 100'000;

// What a cell is run with, after defaults, the model's own values and overrides.
struct CellSettings {
  run::RunOptions options;
  Resources resources;
  int max_attempts = 5;
};

int to_int(const std::string& word) { return static_cast<int>(std::min<long long>(std::stoll(word), 1'000'000'000)); }

void assign_resource(const std::string& key, const std::vector<std::string>& words, CellSettings& settings) {
  Resources& resources = settings.resources;
  const std::string& word = words.front();
  if (key == "max_attempts") settings.max_attempts = to_int(word);
  if (key == "nodes") resources.nodes = to_int(word);
  if (key == "ranks_per_node") resources.ranks_per_node = to_int(word);
  if (key == "gpus_per_node") resources.gpus_per_node = to_int(word);
  if (key == "time") resources.time = word;
  if (key == "memory") resources.memory = word;
  if (key == "sbatch") resources.sbatch_options = words;
}

// The options of the verb that a sweep file has keys for.
const std::map<std::string, const run::Option*>& keys_of(run::Verb verb) {
  static const std::vector<std::map<std::string, const run::Option*>> kKeys = [] {
    std::vector<std::map<std::string, const run::Option*>> keys;
    for (const run::Verb each : run::all_verbs()) {
      keys.emplace_back();
      for (const run::Option* option : run::options_of(each)) keys.back().emplace(option->key(), option);
    }
    return keys;
  }();
  return kKeys[static_cast<std::size_t>(verb)];
}

// The verbs that have a key: those of an option, all for any other.
std::vector<std::string> verbs_with(const std::string& key) {
  std::vector<std::string> verbs;
  for (const run::Verb verb : run::all_verbs()) {
    if (keys_of(verb).contains(key)) verbs.emplace_back(run::verb_name(verb));
  }
  return verbs;
}

// Of a path that many cells have: canonical once.
class CanonicalPaths {
 public:
  const fs::path& of(const fs::path& path) {
    const auto [entry, is_new] = known_.try_emplace(path.string());
    if (is_new) {
      std::error_code error;
      entry->second = fs::weakly_canonical(path, error);
      if (error) entry->second = path;
      is_file_[path.string()] = fs::is_regular_file(path, error);
    }
    return entry->second;
  }
  bool is_file(const fs::path& path) {
    of(path);
    return is_file_[path.string()];
  }

 private:
  std::unordered_map<std::string, fs::path> known_;
  std::unordered_map<std::string, bool> is_file_;
};

std::string slug_of(const std::string& text) {
  std::string slug;
  for (const char c : text) {
    const bool is_plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_';
    if (is_plain) {
      slug += c;
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
  }
  return slug.substr(0, kLongestSlug);
}

// What decides the measurement of any verb, by names that stay: the digits in the names of run directories follow from
// it.
nlohmann::json canonical_identity(const run::RunOptions& options) {
  run::RunOptions some_layers = options;
  if (options.layers.empty()) some_layers.layers = "0";  // only the other settings are wanted
  some_layers.top_k.reset();
  const run::Settings settings = run::resolve_settings(some_layers, kMostLayers);
  nlohmann::json controls = nlohmann::json::object();
  for (const auto& [name, path] : options.controls) controls[name] = path.string();
  return {{"model", options.model.string()},
          {"data", options.data.string()},
          {"controls", controls},
          {"window_keys", settings.window_keys},
          {"sinks", settings.sinks},
          {"decode", settings.decode_name()},
          {"tail_rows", settings.tail_rows ? nlohmann::json(*settings.tail_rows) : nlohmann::json()},
          {"base", settings.base_name},
          {"residual", options.residual},
          {"device", options.device},
          {"attention", options.attention},
          {"limit", options.limit ? nlohmann::json(*options.limit) : nlohmann::json()},
          {"layers", options.layers.empty() ? "all" : joined(settings.layers, ",")},
          {"per_token", options.per_token},
          {"signals", settings.signals.name()}};
}

// The name of a run directory is a function of what decides its cells, and of nothing else, so that every sweep file
// finds the same one: neither names of the sweep file nor seeds are in it. Options that are as they are when they are
// not given are not in it either: a later winnow with more of them finds the same directory.
std::string name_of(const run::RunOptions& options) {
  nlohmann::json identity = canonical_identity(options);
  for (const run::Option* option : run::options_of(options.verb)) {
    if (option->part != run::Part::kMeasurement && option->part != run::Part::kExtent) continue;
    const auto is_there = [&](const std::string& name) { return identity.contains(name); };
    // What decides a part alone of what is there, such as the rows where --tail-rows does not say, is not.
    const std::vector<std::string>& decided = option->identity;
    const bool is_known = !decided.empty() && std::all_of(decided.begin(), decided.end(), is_there);
    if (is_there(option->key()) || is_known) continue;
    const std::vector<std::string> words = run::words_of(*option, options);
    if (!words.empty()) identity[option->key()] = words;
  }
  if (identity["signals"].get_ref<const std::string&>().empty()) identity.erase("signals");
  std::string slug = options.model.filename().string() + "-" + options.data.stem().string() + "-w" +
                     std::to_string(identity["window_keys"].get<int64_t>()) + "-s" +
                     std::to_string(identity["sinks"].get<int64_t>()) + "-" + identity["decode"].get<std::string>();
  if (options.verb != run::Verb::kCalibrate) {
    identity["verb"] = run::verb_name(options.verb);
    slug += std::string("-") + run::verb_name(options.verb);
  }
  // Bytes of a path need not be UTF-8.
  return slug_of(slug) + "-" + sha256_of(json_text(identity, -1)).substr(0, 12);
}

// The words after `winnow`. Submissions are compared with earlier ones word by word, so the order of these stays.
std::vector<std::string> arguments_of(const run::RunOptions& options) {
  constexpr std::array kFirst = {"model",  "data",   "out",       "window", "control", "sinks",
                                 "target", "decode", "tail-rows", "base",   "layers",  "limit"};
  const std::vector<const run::Option*> table = run::options_of(options.verb);
  std::vector<std::string> words = {run::verb_name(options.verb)};
  const auto add = [&](const run::Option& option) {
    const std::vector<std::string> flags = run::flags_of(option, options);
    words.insert(words.end(), flags.begin(), flags.end());
  };
  for (const std::string name : kFirst) {
    for (const run::Option* option : table) {
      if (option->name == name) add(*option);
    }
  }
  for (const run::Option* option : table) {
    if (std::find(kFirst.begin(), kFirst.end(), option->name) == kFirst.end()) add(*option);
  }
  return words;
}

// As selection::parse_pattern() sees it.
bool is_selection_file(const std::string& pattern) { return pattern.ends_with(".json"); }

class Expansion {
 public:
  Expansion(Sweep& sweep, std::vector<Diagnostic>& problems) : sweep_(sweep), file_(sweep.file), problems_(problems) {}

  void run() {
    const double n_cells = static_cast<double>(file_.models.size()) * static_cast<double>(file_.datasets.size()) *
                           static_cast<double>(file_.windows.size()) * static_cast<double>(file_.sinks.size()) *
                           static_cast<double>(file_.rules.size());
    if (n_cells > kMostCells) {
      report({},
             "there are more than " + std::to_string(static_cast<int>(kMostCells)) +
                 " combinations; expected several smaller sweeps",
             false);
      return;
    }
    for (const SweepModel& model : file_.models) {
      for (const SweepDataset& dataset : file_.datasets) {
        for (const int64_t window : file_.windows) {
          for (const int64_t sinks : file_.sinks) {
            for (const DecodeRule& rule : file_.rules) add(model, dataset, window, sinks, rule);
          }
        }
      }
    }
    report_unused();
    if (sweep_.cells.empty() && problems_.empty()) {
      problems_.push_back({.line = file_.exclude.empty() ? 1 : file_.exclude.front().place.line,
                           .column = file_.exclude.empty() ? 1 : file_.exclude.front().place.column,
                           .message = "every cell is excluded; expected one or more to be left"});
    }
  }

 private:
  void report(const SourceLocation& place, const std::string& message, bool is_missing_input) {
    problems_.push_back({place.line, place.column, message, is_missing_input});
  }

  void add(const SweepModel& model, const SweepDataset& dataset, int64_t window, int64_t sinks,
           const DecodeRule& rule) {
    Cell cell;
    cell.model = model.name;
    cell.dataset = dataset.name;
    cell.window = window;
    cell.sinks = sinks;
    cell.target = rule.target;
    cell.decode = !rule.target.empty() ? (rule.target.starts_with("swaa") ? "full" : "windowed") : rule.decode;
    const std::map<std::string, std::string> coordinates = coordinates_of(cell);
    const auto fits = [&](const Selector& selector) { return selector.matches(coordinates); };
    if (std::any_of(file_.exclude.begin(), file_.exclude.end(), fits)) return;
    Assignments assignments = file_.settings;
    const auto apply = [&](const Assignments& more) {
      for (const auto& [key, words] : more) assignments[key] = words;
    };
    apply(model.resources);
    for (const Override& change : file_.overrides) {
      if (fits(change.match)) apply(change.set);
    }
    CellSettings settings;
    run::RunOptions& options = settings.options;
    if (!assign(assignments, model, settings)) return;
    options.model = paths_.of(model.path);
    options.window = window;
    if (sinks != 0) options.sinks = sinks;
    options.target = rule.target;
    if (!rule.decode.empty()) options.decode = rule.decode;
    if (!set_files(model, dataset, options)) return;
    if (settings.resources.gpus_per_node > 0) {
      if (!assignments.contains("ranks_per_node")) settings.resources.ranks_per_node = settings.resources.gpus_per_node;
      if (!assignments.contains("device")) options.device = "cuda";
    }
    finish(std::move(cell), std::move(settings));
  }

  // Sets what the file says of a cell. Whether all files that it names are there.
  bool assign(const Assignments& assignments, const SweepModel& model, CellSettings& settings) {
    run::RunOptions& options = settings.options;
    if (const auto verb = assignments.find("verb"); verb != assignments.end()) {
      options.verb = run::find_verb(verb->second.front()).value_or(run::Verb::kCalibrate);
    }
    const std::map<std::string, const run::Option*>& keys = keys_of(options.verb);
    bool is_complete = true;
    for (const auto& [key, words] : assignments) {
      const auto option = keys.find(key);
      if (option == keys.end()) {
        assign_resource(key, words, settings);
        continue;
      }
      used_.insert(key);
      std::vector<std::string> values = words;
      if (option->second->syntax == run::Syntax::kPattern) is_complete = set_selections(key, model, values);
      run::set_words(*option->second, values, options);
    }
    return is_complete;
  }

  // Makes files of selections among patterns absolute. Whether all of them are there.
  bool set_selections(const std::string& key, const SweepModel& model, std::vector<std::string>& patterns) {
    bool is_complete = true;
    for (std::string& pattern : patterns) {
      if (!is_selection_file(pattern)) continue;
      const fs::path path = file_of_model(pattern, model.name, file_.directory);
      if (!paths_.is_file(path)) {
        report(file_.setting_places.at(key),
               key + " of model " + model.name + ": " + path.string() +
                   " is missing; expected a selection of winnow select",
               true);
        is_complete = false;
      }
      pattern = paths_.of(path).string();
    }
    return is_complete;
  }

  // A key that no cell takes is a slip: the verb is missing, or another one.
  void report_unused() {
    for (const auto& [key, place] : file_.setting_places) {
      const std::vector<std::string> verbs = verbs_with(key);
      if (verbs.empty() || used_.contains(key)) continue;
      report(place, key + " is of " + join_or(verbs) + " cells, and there is none; expected verb: " + join_or(verbs),
             false);
    }
  }

  // Whether all of them are there.
  bool set_files(const SweepModel& model, const SweepDataset& dataset, run::RunOptions& options) {
    bool is_complete = true;
    const auto take = [&](const SweepDataset::File& file) {
      const fs::path path = file_of_model(file.pattern, model.name, file_.directory);
      if (!paths_.is_file(path)) {
        report(
            file.place,
            (file.name.empty() ? "dataset " + dataset.name : "control " + file.name + " of dataset " + dataset.name) +
                " has no file for model " + model.name + ": " + path.string() +
                " is missing; expected a calibration file, or the model and dataset in exclude",
            true);
        is_complete = false;
      }
      return paths_.of(path);
    };
    if (dataset.data.pattern.empty() || model.name.empty()) return false;  // reported
    options.data = take(dataset.data);
    if (options.verb != run::Verb::kCalibrate) return is_complete;
    for (const SweepDataset::File& control : dataset.controls) {
      options.controls.emplace_back(control.name, take(control));
    }
    return is_complete;
  }

  void finish(Cell cell, CellSettings settings) {
    run::RunOptions& options = settings.options;
    try {
      run::check_options(options);
      cell.name = name_of(options);
    } catch (const Error& error) {
      report(file_.sinks_place, describe(cell) + ": " + error.what() + "; expected it in exclude, or other values",
             false);
      return;
    }
    cell.run_directory = file_.output / "runs" / cell.name;
    options.out = cell.run_directory;
    if (!options.responses.empty()) options.responses = cell.run_directory / options.responses;
    cell.calibrate_arguments = arguments_of(options);
    cell.seeds = file_.seeds;
    if (options.verb == run::Verb::kSearch) cell.seeds = {0};  // its figures follow from its run directory alone
    cell.resources = settings.resources;
    cell.max_attempts = settings.max_attempts;
    const auto [known, is_new] = index_.try_emplace(cell.name, sweep_.cells.size());
    if (is_new) {
      sweep_.cells.push_back({std::move(cell), std::move(options)});
      return;
    }
    Cell& same = sweep_.cells[known->second].cell;
    sweep_.notes.push_back(describe(cell) + " is the same measurement as " + describe(same) + ": run once");
    if (cell.target != same.target && cell.window == same.window) same.target += "," + cell.target;
  }

  Sweep& sweep_;
  const SweepFile& file_;
  std::vector<Diagnostic>& problems_;
  CanonicalPaths paths_;
  std::set<std::string> used_;                          // keys of options that a cell takes
  std::unordered_map<std::string, std::size_t> index_;  // by name of the run directory
};

}  // namespace

std::map<std::string, std::string> coordinates_of(const Cell& cell) {
  return {{"model", cell.model},
          {"dataset", cell.dataset},
          {"window", std::to_string(cell.window)},
          {"sinks", std::to_string(cell.sinks)},
          {"decode", cell.decode},
          {"target", cell.target}};
}

std::string describe(const Cell& cell) {
  return "model=" + cell.model + " dataset=" + cell.dataset + " window=" + std::to_string(cell.window) +
         " sinks=" + std::to_string(cell.sinks) +
         (cell.target.empty() ? " decode=" + cell.decode : " target=" + cell.target) +
         (cell.is_calibration() ? "" : " verb=" + cell.verb());
}

std::vector<fs::path> selections_of(const SweepCell& cell) {
  std::vector<fs::path> files;
  for (const std::string& pattern : cell.options.patterns) {
    if (is_selection_file(pattern)) files.emplace_back(pattern);
  }
  return files;
}

void expand(Sweep& sweep, std::vector<Diagnostic>& problems) { Expansion(sweep, problems).run(); }

Sweep read_sweep(const fs::path& path) { return parse_sweep(path, read_yaml_text(path, "the sweep file")); }

Sweep parse_sweep(const fs::path& path, const std::string& text) {
  Sweep sweep;
  std::vector<Diagnostic> problems;
  sweep.file = parse_sweep_file(path, text, problems);
  // With a wrong value somewhere cells cannot be made; missing files are looked for all the same.
  const bool has_other =
      std::any_of(problems.begin(), problems.end(), [](const Diagnostic& p) { return !p.is_missing_input; });
  if (!has_other) {
    expand(sweep, problems);
  } else {
    SweepFile& file = sweep.file;
    file.settings.clear();
    file.setting_places.clear();
    file.overrides.clear();
    for (SweepModel& model : file.models) model.resources.clear();
    file.sinks = {0};
    if (!file.windows.empty()) file.windows = {1};
    file.rules = {{"", "windowed"}};
    file.exclude.clear();
    std::vector<Diagnostic> more;
    expand(sweep, more);
    for (Diagnostic& problem : more) {
      if (problem.is_missing_input) problems.push_back(std::move(problem));
    }
  }
  refuse_problems(path, std::move(problems));
  return sweep;
}

}  // namespace winnow::sweep
