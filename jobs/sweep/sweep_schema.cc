#include "jobs/sweep/sweep_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"
#include "base/yaml_file.h"
#include "jobs/sweep/text_rules.h"
#include "pipeline/run/options/option_table.h"

namespace winnow::sweep {
namespace {

using Json = nlohmann::ordered_json;

// ---- the keys -------------------------------------------------------------------------------------------------------

std::vector<Key> joined(std::vector<Key> left, const std::vector<Key>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

ValueType type_of(const run::Option& option) {
  switch (option.syntax) {
    case run::Syntax::kSize:
      return ValueType::kSize;
    case run::Syntax::kLayers:
      return ValueType::kLayers;
    case run::Syntax::kBase:
      return ValueType::kBase;
    case run::Syntax::kWords:
      return ValueType::kWords;
    case run::Syntax::kFileName:
      return ValueType::kName;
    default:
      break;
  }
  if (option.is_switch()) return ValueType::kBoolean;
  if (option.is_integer()) return ValueType::kInteger;
  if (option.is_number()) return ValueType::kNumber;
  return option.choices.empty() ? ValueType::kText : ValueType::kChoice;
}

// The key of an option. What the help of the flag says of its value holds for it, too.
Key key_of(const run::Option& option) {
  const bool names_unit = option.unit.empty() || option.help.find(option.unit) != std::string::npos;
  Key key{.name = option.key(),
          .type = type_of(option),
          .help = option.description() + (names_unit ? "" : "; in " + option.unit),
          .minimum = option.minimum.value_or(0),
          .choices = option.choices};
  if (option.syntax == run::Syntax::kFileName) key.help += "; here its name in the run directory of each cell";
  if (option.is_repeated() || option.syntax == run::Syntax::kWords) key.form = ValueForm::kOneOrList;
  if (option.sweep == run::SweepUse::kAxis) key.form = ValueForm::kList;
  key.is_required = option.sweep == run::SweepUse::kAxis && option.is_required;
  // Verbs differ in what they take.
  if (option.verbs.size() == 1) key.help += "; of " + std::string(run::verb_name(option.verbs.front())) + " cells";
  return key;
}

// The keys of the options that a sweep file says in that way.
std::vector<Key> option_keys(run::SweepUse use) {
  std::vector<Key> keys;
  for (const run::Option& option : run::option_table()) {
    const bool is_known =
        std::any_of(keys.begin(), keys.end(), [&](const Key& key) { return key.name == option.key(); });
    if (option.sweep == use && !is_known) keys.push_back(key_of(option));
  }
  return keys;
}

std::vector<Key> measurement_keys() {
  std::vector<Key> keys = {
      {.name = "verb",
       .type = ValueType::kChoice,
       .help = "What a cell is: a run of winnow calibrate, search or evaluate (default: calibrate)"}};
  for (const run::Verb verb : run::all_verbs()) keys.front().choices.emplace_back(run::verb_name(verb));
  keys = joined(keys, option_keys(run::SweepUse::kSetting));
  keys.push_back({.name = "max_attempts",
                  .type = ValueType::kInteger,
                  .help = "Attempts of a cell in one submission, after which it has failed (default: 5)",
                  .minimum = 1});
  return keys;
}

std::vector<Key> resource_keys() {
  const std::vector<Key> keys = {
      {.name = "nodes", .type = ValueType::kInteger, .help = "Nodes of a cell (default: 1)", .minimum = 1},
      {.name = "ranks_per_node",
       .type = ValueType::kInteger,
       .help = "Processes on each node (default: 1, or one for each GPU)",
       .minimum = 1},
      {.name = "gpus_per_node",
       .type = ValueType::kInteger,
       .help = "GPUs on each node; with any, device is cuda unless it is given (default: 0)"},
      {.name = "time",
       .type = ValueType::kTime,
       .help = "Time limit of an attempt, as Slurm reads it: 02:00:00 (default: the site's)"},
      {.name = "memory",
       .type = ValueType::kMemory,
       .help = "Memory of a node, as Slurm reads it: 64G (default: the site's)"},
      {.name = "sbatch",
       .type = ValueType::kText,
       .help = "More options of sbatch, one argument each: --constraint=h100",
       .form = ValueForm::kList}};
  return joined(keys, option_keys(run::SweepUse::kResource));
}

std::vector<Key> coordinate_keys() {
  return {{.name = "model", .type = ValueType::kName, .help = "Names of models", .form = ValueForm::kOneOrList},
          {.name = "dataset", .type = ValueType::kName, .help = "Names of datasets", .form = ValueForm::kOneOrList},
          {.name = "window", .type = ValueType::kInteger, .help = "Windows", .form = ValueForm::kOneOrList},
          {.name = "sinks", .type = ValueType::kInteger, .help = "Sinks", .form = ValueForm::kOneOrList},
          {.name = "decode", .type = ValueType::kText, .help = "Decode modes", .form = ValueForm::kOneOrList},
          {.name = "target", .type = ValueType::kText, .help = "Targets", .form = ValueForm::kOneOrList}};
}

const ObjectSchema& resources_schema() {
  static const ObjectSchema kSchema{"defaults", resource_keys()};
  return kSchema;
}

const ObjectSchema& model_schema() {
  static const ObjectSchema kSchema{
      "a model", joined({{.name = "name",
                          .type = ValueType::kName,
                          .help = "Name in tables, and what {model} in the paths of datasets stands for",
                          .is_required = true},
                         {.name = "path",
                          .type = ValueType::kText,
                          .help = "Checkpoint directory: config.json and safetensors",
                          .is_required = true}},
                        resource_keys())};
  return kSchema;
}

const ObjectSchema& dataset_schema() {
  static const ObjectSchema kSchema{
      "a dataset",
      {{.name = "name", .type = ValueType::kName, .help = "Name in tables", .is_required = true},
       {.name = "data",
        .type = ValueType::kText,
        .help = "Calibration file; {model} in it stands for the model's name, since tokens depend on the tokenizer",
        .is_required = true},
       {.name = "controls",
        .type = ValueType::kFiles,
        .help = "Control sets of short prompts by name; {model} as in data (default: none)"}}};
  return kSchema;
}

const ObjectSchema& selector_schema() {
  static const ObjectSchema kSchema{"a selection of cells", coordinate_keys()};
  return kSchema;
}

const ObjectSchema& override_schema() {
  static const ObjectSchema kSchema{"an override",
                                    {{.name = "match",
                                      .type = ValueType::kObject,
                                      .help = "Cells that it is for: those that fit every key given here",
                                      .is_required = true,
                                      .object = &selector_schema()},
                                     {.name = "set",
                                      .type = ValueType::kObject,
                                      .help = "What is different for them",
                                      .is_required = true,
                                      .object = &settings_schema()}}};
  return kSchema;
}

std::vector<Key> top_keys() {
  const std::vector<Key> inputs = {
      {.name = "name", .type = ValueType::kName, .help = "Name of the sweep and of its jobs", .is_required = true},
      {.name = "output",
       .type = ValueType::kText,
       .help = "Directory of all that the sweep makes; paths are relative to this file",
       .is_required = true},
      {.name = "winnow",
       .type = ValueType::kText,
       .help = "Executable that the cells run (default: the one that submits)"},
      {.name = "models",
       .type = ValueType::kObject,
       .help = "Models to measure",
       .form = ValueForm::kList,
       .is_required = true,
       .object = &model_schema()},
      {.name = "datasets",
       .type = ValueType::kObject,
       .help = "Calibration sets to measure on",
       .form = ValueForm::kList,
       .is_required = true,
       .object = &dataset_schema()}};
  const std::vector<Key> others = {{.name = "defaults",
                                    .type = ValueType::kObject,
                                    .help = "Resources of models that do not say otherwise",
                                    .object = &resources_schema()},
                                   {.name = "exclude",
                                    .type = ValueType::kObject,
                                    .help = "Cells to leave out: those that fit every key of one item",
                                    .form = ValueForm::kList,
                                    .object = &selector_schema()},
                                   {.name = "overrides",
                                    .type = ValueType::kObject,
                                    .help = "What is different for some cells; later ones win",
                                    .form = ValueForm::kList,
                                    .object = &override_schema()},
                                   {.name = "max_parallel",
                                    .type = ValueType::kInteger,
                                    .help = "Cells of a Slurm array that run at once (default: as many as Slurm lets)",
                                    .minimum = 1}};
  return joined(joined(inputs, option_keys(run::SweepUse::kAxis)), others);
}

// ---- values ---------------------------------------------------------------------------------------------------------

std::optional<int64_t> integer_of(const YAML::Node& node) {
  // A quoted number is text, for an editor's schema too.
  if (!node.IsScalar() || node.Tag() == "!") return std::nullopt;
  if (!is_integer(node.Scalar())) return std::nullopt;
  return std::stoll(node.Scalar());
}

std::optional<double> number_of(const YAML::Node& node) {
  double value = 0.0;
  if (!node.IsScalar() || node.Tag() == "!" || !YAML::convert<double>::decode(node, value)) return std::nullopt;
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

// Whether a text is one or several of the words, with commas between them.
bool are_words(const std::string& text, const std::vector<std::string>& words) {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (std::find(words.begin(), words.end(), text.substr(begin, end - begin)) == words.end()) return false;
    begin = end + 1;
  }
  return true;
}

std::string shown(const YAML::Node& node) {
  if (node.IsNull()) return "nothing";
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a map";
  return "'" + shown_value(node.Scalar()) + "'";
}

void check_scalar(const YAML::Node& node, const Key& key, std::vector<Diagnostic>& problems) {
  const auto refuse = [&](const std::string& expected) {
    problems.push_back(problem_at(node, key.name + " is " + shown(node) + "; expected " + expected));
  };
  if (key.type == ValueType::kInteger) {
    const auto value = integer_of(node);
    if (!value || *value < key.minimum) {
      refuse(key.minimum == 0 ? "a whole number, 0 or more"
                              : "a whole number, at least " + std::to_string(key.minimum));
    }
    return;
  }
  if (key.type == ValueType::kBoolean) {
    if (!node.IsScalar() || (node.Scalar() != "true" && node.Scalar() != "false")) refuse("true or false");
    return;
  }
  if (key.type == ValueType::kChoice) {
    const bool is_choice =
        node.IsScalar() && std::find(key.choices.begin(), key.choices.end(), node.Scalar()) != key.choices.end();
    if (!is_choice) refuse(join_or(key.choices));
    return;
  }
  if (key.type == ValueType::kNumber) {
    const auto value = number_of(node);
    if (!value || *value < static_cast<double>(key.minimum))
      refuse("a number, at least " + std::to_string(key.minimum));
    return;
  }
  if (key.type == ValueType::kWords) {
    if (!node.IsScalar() || !are_words(node.Scalar(), key.choices))
      refuse(join_or(key.choices) + ", or several with commas");
    return;
  }
  const TextRule rule = rule_of(key.type);
  const bool is_too_long = node.IsScalar() && node.Scalar().size() > rule.longest;
  // Control characters come in by escapes ("\e"). one_line() changes them and nothing else.
  const bool fits = node.IsScalar() && !node.Scalar().empty() && !is_too_long &&
                    one_line(node.Scalar()) == node.Scalar() && rule.fits(node.Scalar());
  if (fits) return;
  refuse(rule.expected + (is_too_long ? ", at most " + std::to_string(rule.longest) + " characters" : std::string()));
}

void check_files(const YAML::Node& node, const Key& key, std::vector<Diagnostic>& problems) {
  if (!node.IsMap()) {
    problems.push_back(problem_at(node, key.name + " is " + shown(node) + "; expected a map from names to files"));
    return;
  }
  if (node.size() > kMostItems) {
    problems.push_back(problem_at(node, key.name + " has " + std::to_string(node.size()) + " files; expected at most " +
                                            std::to_string(kMostItems)));
    return;
  }
  static const Key kName{.name = "a control's name", .type = ValueType::kName, .help = ""};
  std::set<std::string> seen;
  for (const auto& entry : node) {
    check_scalar(entry.first, kName, problems);
    check_scalar(entry.second,
                 {.name = entry.first.IsScalar() ? shown_value(entry.first.Scalar()) : "control", .help = ""},
                 problems);
    if (entry.first.IsScalar() && !seen.insert(entry.first.Scalar()).second) {
      problems.push_back(
          problem_at(entry.first, "control " + shown_value(entry.first.Scalar()) + " is given twice; expected once"));
    }
  }
}

void check_one(const YAML::Node& node, const Key& key, std::vector<Diagnostic>& problems) {
  if (key.type == ValueType::kObject) {
    check_against_schema(node, *key.object, problems);
  } else if (key.type == ValueType::kFiles) {
    check_files(node, key, problems);
  } else {
    check_scalar(node, key, problems);
  }
}

// Whether a list may have no item twice: all but options of sbatch. Objects have names that are looked at elsewhere.
bool are_unique(const Key& key) { return key.type != ValueType::kObject && key.name != "sbatch"; }

void check_value(const YAML::Node& key_node, const YAML::Node& node, const Key& key,
                 std::vector<Diagnostic>& problems) {
  if (node.IsNull()) {  // has no place of its own in the file
    problems.push_back(problem_at(key_node, key.name + " has no value; expected one, or leave the key out"));
    return;
  }
  const bool is_list = node.IsSequence();
  if (key.form == ValueForm::kOne || (key.form == ValueForm::kOneOrList && !is_list)) {
    check_one(node, key, problems);
    return;
  }
  if (!is_list) {
    problems.push_back(problem_at(node, key.name + " is " + shown(node) + "; expected a list"));
    return;
  }
  if (node.size() > kMostItems) {
    problems.push_back(problem_at(node, key.name + " has " + std::to_string(node.size()) + " items; expected at most " +
                                            std::to_string(kMostItems)));
    return;
  }
  if (node.size() == 0) problems.push_back(problem_at(node, key.name + " is an empty list; expected an item or more"));
  std::set<std::string> seen;
  for (const YAML::Node& item : node) {
    check_one(item, key, problems);
    if (item.IsScalar() && are_unique(key) && !seen.insert(item.Scalar()).second) {
      problems.push_back(problem_at(item, key.name + " has " + shown(item) + " twice; expected once"));
    }
  }
}

// ---- JSON Schema ----------------------------------------------------------------------------------------------------

Json object_json(const ObjectSchema& schema);

Json one_json(const Key& key) {
  switch (key.type) {
    case ValueType::kInteger:
      return {{"type", "integer"}, {"minimum", key.minimum}};
    case ValueType::kBoolean:
      return {{"type", "boolean"}};
    case ValueType::kNumber:
      return {{"type", "number"}, {"minimum", key.minimum}};
    case ValueType::kChoice:
      return {{"enum", key.choices}};
    case ValueType::kWords: {
      const std::string word = "(" + winnow::joined(key.choices, "|") + ")";
      return {{"type", "string"}, {"pattern", "^" + word + "(," + word + ")*$"}};
    }
    case ValueType::kObject:
      return object_json(*key.object);
    case ValueType::kFiles:
      return {{"type", "object"},
              {"propertyNames",
               {{"pattern", rule_of(ValueType::kName).pattern}, {"maxLength", rule_of(ValueType::kName).longest}}},
              {"additionalProperties",
               {{"type", "string"}, {"minLength", 1}, {"maxLength", rule_of(ValueType::kText).longest}}}};
    case ValueType::kText:
      return {{"type", "string"}, {"minLength", 1}, {"maxLength", rule_of(key.type).longest}};
    default:
      // Some of these look like numbers to YAML: 90 (minutes), layer 4.
      return {{"type", {"string", "integer"}},
              {"pattern", rule_of(key.type).pattern},
              {"maxLength", rule_of(key.type).longest}};
  }
}

Json key_json(const Key& key) {
  const Json one = one_json(key);
  Json list = {{"type", "array"}, {"items", one}, {"minItems", 1}};
  if (are_unique(key)) list["uniqueItems"] = true;
  Json json = key.form == ValueForm::kOne ? one : list;
  if (key.form == ValueForm::kOneOrList) json = {{"anyOf", {one, list}}};
  json["description"] = key.help;
  return json;
}

Json object_json(const ObjectSchema& schema) {
  Json properties = Json::object();
  Json required = Json::array();
  for (const Key& key : schema.keys) {
    properties[key.name] = key_json(key);
    if (key.is_required) required.push_back(key.name);
  }
  Json json = {{"type", "object"}, {"additionalProperties", false}};
  if (!required.empty()) json["required"] = required;
  json["properties"] = properties;
  return json;
}

}  // namespace

const Key* ObjectSchema::find(const std::string& name) const {
  const auto found = std::find_if(keys.begin(), keys.end(), [&](const Key& key) { return key.name == name; });
  return found == keys.end() ? nullptr : &*found;
}

const ObjectSchema& settings_schema() {
  static const ObjectSchema kSchema{"set", joined(measurement_keys(), resource_keys())};
  return kSchema;
}

const ObjectSchema& sweep_schema() {
  static const ObjectSchema kSchema{"a sweep", joined(top_keys(), measurement_keys())};
  return kSchema;
}

std::string json_schema() {
  Json json = {
      {"$schema", "https://json-schema.org/draft/2020-12/schema"},
      {"title", "winnow sweep file"},
      {"description", "Models, datasets and windows that winnow sweep measures, one cell for each combination"}};
  json.update(object_json(sweep_schema()));
  return json_text(json, 2) + "\n";
}

bool is_integer(const std::string& text) {
  constexpr std::size_t kMostDigits = 18;
  const std::string_view digits = std::string_view(text).substr(text.starts_with('-') ? 1 : 0);
  return !digits.empty() && digits.size() <= kMostDigits && (digits.size() == 1 || digits.front() != '0') &&
         std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; });
}

Diagnostic problem_at(const YAML::Node& node, std::string message) {
  const YAML::Mark mark = node.Mark();  // -1 where there is none
  return {.line = std::max(mark.line, 0) + 1, .column = std::max(mark.column, 0) + 1, .message = std::move(message)};
}

void check_against_schema(const YAML::Node& node, const ObjectSchema& schema, std::vector<Diagnostic>& problems) {
  std::vector<std::string> names;
  for (const Key& key : schema.keys) names.push_back(key.name);
  if (!node.IsMap()) {
    problems.push_back(problem_at(node, schema.what + " is " + shown(node) + "; expected a map of keys"));
    return;
  }
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
    const Key* key = schema.find(name);
    if (key == nullptr) {
      const std::vector<std::string> near = near_words(name, names);
      problems.push_back(problem_at(entry.first, "unknown key '" + shown_value(name) + "' in " + schema.what +
                                                     "; expected " + join_or(near.empty() ? names : near)));
    } else if (!seen.insert(name).second) {
      problems.push_back(problem_at(entry.first, name + " is given twice; expected once"));
    } else {
      check_value(entry.first, entry.second, *key, problems);
    }
  }
  for (const Key& key : schema.keys) {
    if (key.is_required && !seen.contains(key.name)) {
      problems.push_back(problem_at(node, schema.what + " has no '" + key.name + "'; expected it: " + key.help));
    }
  }
}

}  // namespace winnow::sweep
