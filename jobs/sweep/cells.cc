#include "jobs/sweep/cells.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "base/yaml_file.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

// A layer list is made canonical without looking at the model; no model has more layers.
constexpr int64_t kMostLayers = 4096;
constexpr std::size_t kLongestSlug = 80;
constexpr double kMostCells = 100'000;

// What a cell is run with, after defaults, the model's own values and overrides.
struct CellSettings {
  run::CalibrateOptions options;
  Resources resources;
  std::string max_memory;
  int max_attempts = 5;
  bool names_device = false;
  bool names_ranks = false;
};

int to_int(const std::string& word) { return static_cast<int>(std::min<long long>(std::stoll(word), 1'000'000'000)); }

void assign(const std::string& key, const std::vector<std::string>& words, CellSettings& settings) {
  run::CalibrateOptions& options = settings.options;
  Resources& resources = settings.resources;
  const std::string& word = words.front();
  if (key == "tail_rows") options.tail_rows = std::stoll(word);
  if (key == "base") options.base = word;
  if (key == "layers") options.layers = word;
  if (key == "limit") options.limit = std::stoll(word);
  if (key == "per_token") options.per_token = word == "true";
  if (key == "ignore_native_window") options.ignore_native_window = word == "true";
  if (key == "device") options.device = word;
  if (key == "residual") options.residual = word;
  if (key == "attention") options.attention = word;
  if (key == "threads") options.threads = to_int(word);
  if (key == "max_memory") settings.max_memory = word;
  if (key == "share_gpu") options.share_gpu = word == "true";
  if (key == "max_attempts") settings.max_attempts = to_int(word);
  if (key == "nodes") resources.nodes = to_int(word);
  if (key == "ranks_per_node") resources.ranks_per_node = to_int(word);
  if (key == "gpus_per_node") resources.gpus_per_node = to_int(word);
  if (key == "time") resources.time = word;
  if (key == "memory") resources.memory = word;
  if (key == "sbatch") resources.sbatch_options = words;
  settings.names_device = settings.names_device || key == "device";
  settings.names_ranks = settings.names_ranks || key == "ranks_per_node";
}

void apply(const Assignments& assignments, CellSettings& settings) {
  for (const auto& [key, words] : assignments) assign(key, words, settings);
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

// The name of a run directory is a function of what decides the measurement, and of nothing else, so that every sweep
// file finds the same one: neither names of the sweep file nor seeds are in it.
std::string name_of(const run::CalibrateOptions& options) {
  run::CalibrateOptions some_layers = options;
  if (options.layers.empty()) some_layers.layers = "0";  // only the other settings are wanted
  const winnow::run::Settings settings = run::resolve_settings(some_layers, kMostLayers);
  nlohmann::json controls = nlohmann::json::object();
  for (const auto& [name, path] : options.controls) controls[name] = path.string();
  const nlohmann::json identity = {
      {"model", options.model.string()},
      {"data", options.data.string()},
      {"controls", controls},
      {"window_keys", settings.window_keys},
      {"sinks", settings.sinks},
      {"decode", settings.decode_name()},
      {"tail_rows", options.tail_rows ? nlohmann::json(*options.tail_rows) : nlohmann::json()},
      {"base", settings.base_name},
      {"residual", options.residual},
      {"device", options.device},
      {"attention", options.attention},
      {"limit", options.limit ? nlohmann::json(*options.limit) : nlohmann::json()},
      {"layers", options.layers.empty() ? "all" : joined(settings.layers, ",")},
      {"per_token", options.per_token}};
  const std::string slug = slug_of(options.model.filename().string() + "-" + options.data.stem().string() + "-w" +
                                   std::to_string(settings.window_keys) + "-s" + std::to_string(settings.sinks) + "-" +
                                   settings.decode_name());
  // Bytes of a path need not be UTF-8.
  const std::string text = json_text(identity, -1);
  return slug + "-" + sha256_of(text).substr(0, 12);
}

std::vector<std::string> arguments_of(const CellSettings& settings, const fs::path& run_directory) {
  const run::CalibrateOptions& o = settings.options;
  // --flag=VALUE: a value that begins with a dash is none of CLI11's flags then.
  std::vector<std::string> words = {"calibrate", "--model=" + o.model.string(), "--data=" + o.data.string(),
                                    "--out=" + run_directory.string(), "--window=" + std::to_string(o.window)};
  const auto add = [&](const std::string& flag, const std::string& value) {
    words.push_back("--" + flag + "=" + value);
  };
  for (const auto& [name, path] : o.controls) add("control", name + "=" + path.string());
  if (o.sinks.value_or(0) != 0) add("sinks", std::to_string(*o.sinks));
  if (!o.target.empty()) add("target", o.target);
  if (o.target.empty() && o.decode) add("decode", *o.decode);
  if (o.tail_rows) add("tail-rows", std::to_string(*o.tail_rows));
  if (o.base != "full") add("base", o.base);
  if (!o.layers.empty()) add("layers", o.layers);
  if (o.limit) add("limit", std::to_string(*o.limit));
  if (o.per_token) words.emplace_back("--per-token");
  if (o.ignore_native_window) words.emplace_back("--ignore-native-window");
  if (o.device != "auto") add("device", o.device);
  if (o.residual != "checkpoint") add("residual", o.residual);
  if (o.attention != "auto") add("attention", o.attention);
  if (o.threads > 0) add("threads", std::to_string(o.threads));
  if (!settings.max_memory.empty()) add("max-memory", settings.max_memory);
  if (o.share_gpu) words.emplace_back("--share-gpu");
  return words;
}

class Expansion {
 public:
  Expansion(Sweep& sweep, std::vector<Problem>& problems) : sweep_(sweep), file_(sweep.file), problems_(problems) {}

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
    if (sweep_.cells.empty() && problems_.empty()) {
      problems_.push_back({.line = file_.exclude.empty() ? 1 : file_.exclude.front().place.line,
                           .column = file_.exclude.empty() ? 1 : file_.exclude.front().place.column,
                           .message = "every cell is excluded; expected one or more to be left"});
    }
  }

 private:
  void report(const Place& place, const std::string& message, bool is_missing_input) {
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
    CellSettings settings;
    apply(file_.settings, settings);
    apply(model.resources, settings);
    for (const Override& change : file_.overrides) {
      if (fits(change.match)) apply(change.set, settings);
    }
    run::CalibrateOptions& options = settings.options;
    options.model = paths_.of(model.path);
    options.window = window;
    if (sinks != 0) options.sinks = sinks;
    options.target = rule.target;
    if (!rule.decode.empty()) options.decode = rule.decode;
    if (!set_files(model, dataset, options)) return;
    finish(std::move(cell), std::move(settings));
  }

  // Whether all of them are there.
  bool set_files(const SweepModel& model, const SweepDataset& dataset, run::CalibrateOptions& options) {
    bool is_complete = true;
    const auto take = [&](const SweepDataset::File& file) {
      const fs::path path = dataset.file_for(file, model.name, file_.directory);
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
    for (const SweepDataset::File& control : dataset.controls)
      options.controls.emplace_back(control.name, take(control));
    return is_complete;
  }

  void finish(Cell cell, CellSettings settings) {
    run::CalibrateOptions& options = settings.options;
    Resources& resources = settings.resources;
    if (resources.gpus_per_node > 0) {
      if (!settings.names_ranks) resources.ranks_per_node = resources.gpus_per_node;
      if (!settings.names_device) options.device = "cuda";
    }
    try {
      run::check_options(options);
      if (!settings.max_memory.empty())
        options.max_memory_bytes = run::parse_bytes(settings.max_memory, "--max-memory");
      cell.name = name_of(options);
    } catch (const Error& error) {
      report(file_.sinks_place, describe(cell) + ": " + error.what() + "; expected it in exclude, or other values",
             false);
      return;
    }
    cell.run_directory = file_.output / "runs" / cell.name;
    cell.calibrate_arguments = arguments_of(settings, cell.run_directory);
    cell.seeds = file_.seeds;
    cell.resources = resources;
    cell.max_attempts = settings.max_attempts;
    options.out = cell.run_directory;
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
  std::vector<Problem>& problems_;
  CanonicalPaths paths_;
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
         (cell.target.empty() ? " decode=" + cell.decode : " target=" + cell.target);
}

void expand(Sweep& sweep, std::vector<Problem>& problems) { Expansion(sweep, problems).run(); }

Sweep read_sweep(const fs::path& path) { return parse_sweep(path, read_yaml_text(path, "the sweep file")); }

Sweep parse_sweep(const fs::path& path, const std::string& text) {
  Sweep sweep;
  std::vector<Problem> problems;
  sweep.file = parse_sweep_file(path, text, problems);
  // With a wrong value somewhere cells cannot be made; missing files are looked for all the same.
  const bool has_other =
      std::any_of(problems.begin(), problems.end(), [](const Problem& p) { return !p.is_missing_input; });
  if (!has_other) {
    expand(sweep, problems);
  } else {
    SweepFile& file = sweep.file;
    file.settings.clear();
    file.overrides.clear();
    for (SweepModel& model : file.models) model.resources.clear();
    file.sinks = {0};
    if (!file.windows.empty()) file.windows = {1};
    file.rules = {{"", "windowed"}};
    file.exclude.clear();
    std::vector<Problem> more;
    expand(sweep, more);
    for (Problem& problem : more) {
      if (problem.is_missing_input) problems.push_back(std::move(problem));
    }
  }
  refuse_problems(path, std::move(problems));
  return sweep;
}

}  // namespace winnow::sweep
