// Lists of modules, as a quantization_config writes them.
#pragma once

#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "base/json.h"

namespace winnow::quantization {

// How the entries of a list are meant: each kind of checkpoint has its own rule.
enum class ModuleRule {
  kPrefix,     // Transformers: a regular expression for the beginning of the name up to a dot, or the end of the name
  kExact,      // compressed-tensors: the name, "re:" with a regular expression for its beginning, or a class of modules
  kWildcards,  // ModelOpt: the name, with * for any characters
};

// Names of modules, such as "model.layers.0.mlp.up_proj", that a list matches or not.
class ModuleList {
 public:
  ModuleList() = default;
  // The list in field `key`; empty where the field is absent or null. Throws Error(kBadData) for what is no list of
  // texts, and for regular expressions that winnow does not read.
  ModuleList(const ConfigFields& fields, const char* key, ModuleRule rule);

  bool matches(const std::string& module) const;
  // Whether an entry names a class, such as Linear: all modules that hold weights.
  bool has_class() const { return has_class_; }

 private:
  void add(const ConfigFields& fields, const char* key, const std::string& text);

  ModuleRule rule_ = ModuleRule::kPrefix;
  std::vector<std::string> names_;
  std::vector<std::regex> expressions_;
  bool has_class_ = false;
};

}  // namespace winnow::quantization
