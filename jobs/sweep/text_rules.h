// The texts that the keys of a sweep file take.
#pragma once

#include <cstddef>
#include <string_view>

#include "jobs/sweep/sweep_schema.h"

namespace winnow::sweep {

// A rule in two forms: matched by hand, since std::regex recurses once for each character of a value, and as the
// pattern of the JSON Schema. `longest`: bytes.
struct TextRule {
  bool (*fits)(std::string_view text);
  const char* pattern;
  const char* expected;  // for messages
  std::size_t longest;
};

// Returns the rule of a key of that type; of plain text for a type without text.
TextRule rule_of(ValueType type);

}  // namespace winnow::sweep
