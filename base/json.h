// Untrusted JSON: safetensors headers, shard indices and config.json.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace winnow {

enum class JsonDialect {
  kStrict,  // RFC 8259, as the reference reader of safetensors has it
  // The same with NaN, Infinity and -Infinity, as Python's json reads and writes them: for files beside the weights.
  kPython,
};

// Parses `text` in linear time. `origin` names the file, and the part of it, in messages. Throws Error(kBadData) for
// what is not JSON, naming what it is where its first bytes tell; for an object with a key twice (readers differ in
// which one they take) and for nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& origin, JsonDialect dialect = JsonDialect::kStrict);
// Does the same and keeps the order of the text.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& origin,
                                          JsonDialect dialect = JsonDialect::kStrict);

// Returns JSON as Python's json reads it, indented by two: numbers that are not finite are written in its words for
// them.
std::string python_json(const nlohmann::ordered_json& value);

// Return a value from a file for a one-line message: as JSON, with control characters escaped, cut where it is long.
std::string shown(const nlohmann::json& value);
std::string quote(std::string_view text);

// Return JSON as text for a file or a terminal; indent -1: one line. They never throw: bytes that are not UTF-8 become
// U+FFFD, and characters that a terminal would obey are escaped.
std::string json_text(const nlohmann::json& json, int indent);
std::string json_text(const nlohmann::ordered_json& json, int indent);

}  // namespace winnow
