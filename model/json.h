// Untrusted JSON: safetensors headers, shard indices and config.json.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace winnow {

// Parses `text`. `origin` names the file, and the part of it, in messages. Throws Error(kBadData) for what is not JSON,
// for an object with a key twice (readers differ in which one they take) and for nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& origin);

// A value from a file as it stands in a one-line message: JSON, control characters escaped, long ones cut.
std::string shown(const nlohmann::json& value);
std::string quote(std::string_view text);

// The text of JSON for a file or a terminal; indent -1: one line. Never throws: bytes that are not UTF-8 become U+FFFD,
// and characters that a terminal would obey are escaped.
std::string json_text(const nlohmann::json& json, int indent);
std::string json_text(const nlohmann::ordered_json& json, int indent);

// The whole of a text file. Throws Error(kNoInput), and Error(kBadData) beyond max_bytes.
std::string read_text(const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace winnow
