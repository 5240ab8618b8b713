// Which texts the keys of a sweep file take.
#pragma once

#include <cstddef>
#include <string_view>

#include "jobs/sweep/sweep_schema.h"

namespace winnow::sweep {

// The same twice: matched by hand, since std::regex recurses once for each character of a value, and as the pattern of
// the JSON Schema. `longest`: bytes.
struct TextRule {
  bool (*fits)(std::string_view text);
  const char* pattern;
  const char* expected;  // for messages
  std::size_t longest;
};

// Of a key of that type; for one that is no text, the rule of plain text.
TextRule rule_of(ValueType type);

}  // namespace winnow::sweep
