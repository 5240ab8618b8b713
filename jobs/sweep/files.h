// Makes directories, and reads and writes JSON, for a sweep.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace winnow::sweep {

// Makes a directory with its parents. Throws Error(kCannotCreate | kIoError).
void make_directories(const std::filesystem::path& path);
// Returns JSON with a line feed at its end; bytes that are not UTF-8 (file names may have them) become U+FFFD. indent
// -1: one line.
std::string dump_json(const nlohmann::json& json, int indent);
// Reads a JSON file; none where it is missing, too large or not JSON: a reader of a directory that others write to goes
// on.
std::optional<nlohmann::json> read_json(const std::filesystem::path& path);

}  // namespace winnow::sweep
