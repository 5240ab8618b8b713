// Untrusted JSON: safetensors headers, shard indices and config.json.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace winnow {

enum class JsonDialect {
  kStrict,  // RFC 8259, as the reference reader of safetensors has it
  // Besides, NaN, Infinity and -Infinity, as Python's json reads and writes them. For what stands beside the weights.
  kPython,
};

// Parses `text` in a time that grows with its length and no faster. `origin` names the file, and the part of it, in
// messages. Throws Error(kBadData) for what is not JSON, naming what it is where its first bytes tell; for an object
// with a key twice (readers differ in which one they take) and for nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& origin, JsonDialect dialect = JsonDialect::kStrict);
// The same with the order of the text.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& origin,
                                          JsonDialect dialect = JsonDialect::kStrict);

// JSON as Python's json reads it, indented by two: numbers that are not finite are written as its words for them.
std::string python_json(const nlohmann::ordered_json& value);

// A value from a file as it stands in a one-line message: JSON, control characters escaped, long ones cut.
std::string shown(const nlohmann::json& value);
std::string quote(std::string_view text);

// The text of JSON for a file or a terminal; indent -1: one line. Never throws: bytes that are not UTF-8 become U+FFFD,
// and characters that a terminal would obey are escaped.
std::string json_text(const nlohmann::json& json, int indent);
std::string json_text(const nlohmann::ordered_json& json, int indent);

}  // namespace winnow
