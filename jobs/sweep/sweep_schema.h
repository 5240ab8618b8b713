// The one definition of the keys of a sweep file, for the checks of the parser, the JSON Schema for editors and the
// help.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace winnow::sweep {

enum class ValueType {
  kText,
  kName,     // letters, digits, _ . -: becomes part of names of files and jobs
  kInteger,  // see Key::minimum
  kNumber,   // the same, with a fraction
  kBoolean,
  kChoice,  // see Key::choices
  kWords,   // several of them with commas
  kTime,    // as Slurm reads it
  kMemory,  // the same
  kSize,    // as --max-memory reads it
  kLayers,  // as --layers reads it
  kBase,    // as --base reads it
  kObject,  // see Key::object
  kFiles,   // a map from names to paths
};

// Bound on the items of any list.
inline constexpr std::size_t kMostItems = 2000;

enum class ValueForm { kOne, kList, kOneOrList };

struct ObjectSchema;

struct Key {
  std::string name;
  ValueType type = ValueType::kText;
  std::string help;
  ValueForm form = ValueForm::kOne;
  bool is_required = false;
  int64_t minimum = 0;
  std::vector<std::string> choices = {};
  const ObjectSchema* object = nullptr;
};

struct ObjectSchema {
  std::string what;  // "a sweep", "a model": for messages
  std::vector<Key> keys;

  const Key* find(const std::string& name) const;
};

// Returns the schema of a whole file.
const ObjectSchema& sweep_schema();
// Returns the keys that change what is measured or how it is run, which overrides' `set` may have, too.
const ObjectSchema& settings_schema();

// Returns the JSON Schema (draft 2020-12) of a sweep file, with two spaces of indentation and a line feed at its end.
std::string json_schema();

// A fault of a sweep file. Lines and columns count from 1.
struct Diagnostic {
  int line = 1;
  int column = 1;
  std::string message;  // "what; expected ..."
  bool is_missing_input = false;
};

// Returns true for a decimal number that fits 64 bits, without zeros in front: to YAML 1.1 a leading zero means octal.
bool is_integer(const std::string& text);
// Appends what does not fit: unknown keys, keys given twice, missing ones, wrong types and values.
void check_against_schema(const YAML::Node& node, const ObjectSchema& schema, std::vector<Diagnostic>& problems);
Diagnostic problem_at(const YAML::Node& node, std::string message);

}  // namespace winnow::sweep
