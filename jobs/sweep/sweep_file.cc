#include "jobs/sweep/sweep_file.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/strings.h"
#include "base/yaml_file.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMostProblems = 200;  // nobody reads more of them at once

SourceLocation place_of(const YAML::Node& node) {
  const Diagnostic at = problem_at(node, "");
  return {at.line, at.column};
}

// Readers are only strict where check_against_schema is not: what does not fit was reported there, and is left out
// here.

std::vector<std::string> words_of(const YAML::Node& node) {
  if (!node) return {};
  if (node.IsScalar()) return {node.Scalar()};
  std::vector<std::string> words;
  if (!node.IsSequence()) return words;
  for (const YAML::Node& item : node) {
    if (item.IsScalar()) words.push_back(item.Scalar());
    if (words.size() == kMostItems) break;
  }
  return words;
}

std::string word_of(const YAML::Node& node) { return node && node.IsScalar() ? node.Scalar() : std::string(); }

std::vector<int64_t> numbers_of(const YAML::Node& node) {
  std::vector<int64_t> numbers;
  for (const std::string& word : words_of(node)) {
    if (is_integer(word)) numbers.push_back(std::stoll(word));
  }
  return numbers;
}

std::vector<YAML::Node> maps_of(const YAML::Node& node) {
  std::vector<YAML::Node> maps;
  if (!node || !node.IsSequence()) return maps;
  for (const YAML::Node& item : node) {
    if (item.IsMap()) maps.push_back(item);
    if (maps.size() == kMostItems) break;
  }
  return maps;
}

// node[key] of a const node does not make the key.
YAML::Node get(const YAML::Node& node, const std::string& key) {
  return node && node.IsMap() ? node[key] : YAML::Node(YAML::NodeType::Undefined);
}

class Reader {
 public:
  Reader(SweepFile& file, std::vector<Diagnostic>& problems) : file_(file), problems_(problems) {}

  void read(const YAML::Node& root) {
    check_against_schema(root, sweep_schema(), problems_);
    file_.name = word_of(get(root, "name"));
    file_.output = absolute(word_of(get(root, "output")));
    read_winnow(get(root, "winnow"));
    for (const YAML::Node& node : maps_of(get(root, "models"))) read_model(node);
    for (const YAML::Node& node : maps_of(get(root, "datasets"))) read_dataset(node);
    file_.windows = numbers_of(get(root, "windows"));
    file_.sinks = numbers_of(get(root, "sinks"));
    file_.sinks_place = place_of(get(root, "sinks") ? get(root, "sinks") : root);
    if (!get(root, "sinks")) file_.sinks = {0};
    read_rules(root);
    for (const int64_t seed : numbers_of(get(root, "seeds"))) file_.seeds.push_back(static_cast<uint64_t>(seed));
    if (file_.seeds.empty()) file_.seeds = {0};
    add_assignments(root, file_.settings);
    add_assignments(get(root, "defaults"), file_.settings);
    for (const YAML::Node& node : maps_of(get(root, "exclude"))) file_.exclude.push_back(read_selector(node));
    for (const YAML::Node& node : maps_of(get(root, "overrides"))) {
      Override change{.match = read_selector(get(node, "match")), .set = {}};
      add_assignments(get(node, "set"), change.set);
      file_.overrides.push_back(std::move(change));
    }
    const std::vector<int64_t> parallel = numbers_of(get(root, "max_parallel"));
    if (!parallel.empty()) file_.max_parallel = static_cast<int>(std::min<int64_t>(parallel.front(), 1'000'000));
  }

 private:
  void add_assignments(const YAML::Node& node, Assignments& assignments) {
    if (!node || !node.IsMap()) return;
    for (const auto& entry : node) {
      const std::string name = word_of(entry.first);
      if (settings_schema().find(name) == nullptr) continue;
      const std::vector<std::string> words = words_of(entry.second);
      if (words.empty()) continue;
      assignments[name] = words;
      file_.setting_places.try_emplace(name, place_of(entry.first));
    }
  }

  fs::path absolute(const std::string& word) const {
    return word.empty() ? fs::path() : (file_.directory / word).lexically_normal();
  }

  void report(const YAML::Node& node, const std::string& message, bool is_missing_input = false) {
    problems_.push_back(problem_at(node, message));
    problems_.back().is_missing_input = is_missing_input;
  }

  void read_winnow(const YAML::Node& node) {
    file_.winnow = absolute(word_of(node));
    if (!file_.winnow.empty() && access(file_.winnow.c_str(), X_OK) != 0) {
      report(node, "winnow: " + file_.winnow.string() + " cannot be run; expected an executable", true);
    }
  }

  void read_model(const YAML::Node& node) {
    SweepModel model{.name = word_of(get(node, "name")),
                     .path = absolute(word_of(get(node, "path"))),
                     .resources = {},
                     .place = place_of(get(node, "path") ? get(node, "path") : node)};
    add_assignments(node, model.resources);
    if (!model.name.empty()) require_new(get(node, "name"), "model", model.name, file_.models);
    std::error_code error;
    if (!model.path.empty() && !fs::is_regular_file(model.path / "config.json", error)) {
      report(get(node, "path"),
             "model " + model.name + ": there is no " + (model.path / "config.json").string() +
                 "; expected a checkpoint directory",
             true);
    }
    if (!model.path.empty()) {
      const auto [other, is_new] =
          model_directories_.try_emplace(fs::weakly_canonical(model.path, error).string(), model.name);
      if (!is_new) {
        report(get(node, "path"),
               "models " + other->second + " and " + model.name + " are the same directory; expected one");
      }
    }
    file_.models.push_back(std::move(model));
  }

  void read_dataset(const YAML::Node& node) {
    SweepDataset dataset;
    dataset.name = word_of(get(node, "name"));
    if (!dataset.name.empty()) require_new(get(node, "name"), "dataset", dataset.name, file_.datasets);
    const YAML::Node data = get(node, "data");
    dataset.data = {.name = "", .pattern = word_of(data), .place = place_of(data ? data : node)};
    const YAML::Node controls = get(node, "controls");
    if (controls && controls.IsMap()) {
      for (const auto& entry : controls) {
        if (word_of(entry.second).empty()) continue;
        dataset.controls.push_back({word_of(entry.first), word_of(entry.second), place_of(entry.second)});
      }
      std::sort(dataset.controls.begin(), dataset.controls.end(),
                [](const auto& a, const auto& b) { return a.name < b.name; });
    }
    file_.datasets.push_back(std::move(dataset));
  }

  template <typename T>
  void require_new(const YAML::Node& node, const std::string& what, const std::string& name,
                   const std::vector<T>& known) {
    const bool is_known = std::any_of(known.begin(), known.end(), [&](const T& item) { return item.name == name; });
    if (is_known) report(node, "there are two " + what + "s named " + name + "; expected different names");
  }

  void read_rules(const YAML::Node& root) {
    const YAML::Node targets = get(root, "targets");
    const YAML::Node decode = get(root, "decode");
    if (targets && decode) report(decode, "targets fix how answers decode; expected targets or decode, not both");
    for (const std::string& target : words_of(targets)) file_.rules.push_back({target, ""});
    if (targets) return;
    for (const std::string& mode : words_of(decode)) file_.rules.push_back({"", mode});
    if (!decode) file_.rules.push_back({"", "windowed"});
  }

  // Every value must be one that the sweep has: a slip would select nothing in silence.
  Selector read_selector(const YAML::Node& node) {
    Selector selector{.keys = {}, .place = place_of(node)};
    if (!node || !node.IsMap()) return selector;
    for (const auto& entry : node) {
      const std::string key = word_of(entry.first);
      const std::vector<std::string> known = known_values(key);
      if (known.empty() && key != "target") continue;
      for (const std::string& word : words_of(entry.second)) {
        selector.keys[key].push_back(word);
        if (std::find(known.begin(), known.end(), word) != known.end()) continue;
        report(entry.second, "no cell has " + key + " " + shown_value(word) + "; expected " +
                                 (known.empty() ? "targets to be given" : join_some(known)));
      }
    }
    if (node.size() == 0) report(node, "an empty selection fits every cell; expected a key such as model");
    return selector;
  }

  static std::string join_some(std::vector<std::string> words) {
    constexpr std::size_t kMost = 20;
    if (words.size() <= kMost) return join_or(words);
    const std::size_t n_others = words.size() - kMost;
    words.resize(kMost);
    words.push_back(std::to_string(n_others) + " others");
    return join_or(words);
  }

  std::vector<std::string> known_values(const std::string& key) const {
    std::vector<std::string> known;
    const auto add = [&](const std::string& value) {
      if (!value.empty() && std::find(known.begin(), known.end(), value) == known.end()) known.push_back(value);
    };
    if (key == "model") {
      for (const SweepModel& model : file_.models) add(model.name);
    } else if (key == "dataset") {
      for (const SweepDataset& dataset : file_.datasets) add(dataset.name);
    } else if (key == "window") {
      for (const int64_t window : file_.windows) add(std::to_string(window));
    } else if (key == "sinks") {
      for (const int64_t sinks : file_.sinks) add(std::to_string(sinks));
    } else if (key == "target") {
      for (const DecodeRule& rule : file_.rules) add(rule.target);
    } else if (key == "decode") {
      add("windowed");
      add("full");
    }
    return known;
  }

  SweepFile& file_;
  std::vector<Diagnostic>& problems_;
  std::map<std::string, std::string> model_directories_;  // names of models by canonical path
};

}  // namespace

fs::path file_of_model(std::string path, const std::string& model, const fs::path& directory) {
  static const std::string kPlaceholder = "{model}";
  for (std::size_t at = path.find(kPlaceholder); at != std::string::npos; at = path.find(kPlaceholder, at)) {
    path.replace(at, kPlaceholder.size(), model);
    at += model.size();
  }
  return (directory / path).lexically_normal();
}

bool Selector::matches(const std::map<std::string, std::string>& coordinates) const {
  return std::all_of(keys.begin(), keys.end(), [&](const auto& key) {
    const auto& [name, values] = key;
    return std::find(values.begin(), values.end(), coordinates.at(name)) != values.end();
  });
}

SweepFile parse_sweep_file(const fs::path& path, const std::string& text, std::vector<Diagnostic>& problems) {
  SweepFile file;
  file.path = path;
  file.directory = fs::absolute(path).parent_path();
  YAML::Node root;
  try {
    root = parse_yaml(text);
  } catch (const YamlError& error) {
    problems.push_back({.line = error.line(), .column = error.column(), .message = error.what()});
    return file;
  }
  try {
    Reader(file, problems).read(root);
  } catch (const YAML::Exception& error) {
    problems.push_back({.line = std::max(error.mark.line, 0) + 1,
                        .column = std::max(error.mark.column, 0) + 1,
                        .message = error.msg + "; expected a sweep (see winnow sweep schema)"});
  }
  return file;
}

void refuse_problems(const fs::path& path, std::vector<Diagnostic> problems) {
  if (problems.empty()) return;
  std::stable_sort(problems.begin(), problems.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::pair(a.line, a.column) < std::pair(b.line, b.column);
  });
  const bool only_missing =
      std::all_of(problems.begin(), problems.end(), [](const Diagnostic& problem) { return problem.is_missing_input; });
  std::vector<std::string> lines;
  std::set<std::string> said;
  for (const Diagnostic& problem : problems) {
    const std::string line = path.string() + ":" + std::to_string(problem.line) + ":" + std::to_string(problem.column) +
                             ": " + problem.message;
    if (!said.insert(line).second) continue;
    lines.push_back(line);
    if (lines.size() == kMostProblems) break;
  }
  throw SweepFileError(only_missing ? ExitCode::kNoInput : ExitCode::kUsage, std::move(lines));
}

}  // namespace winnow::sweep
