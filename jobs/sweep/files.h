// Directories and JSON files of a sweep.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace winnow::sweep {

// With its parents. Throws Error(kCannotCreate | kIoError).
void make_directories(const std::filesystem::path& path);
// With a line feed; bytes that are not UTF-8 (file names may have them) become U+FFFD. indent -1: one line.
std::string dump_json(const nlohmann::json& json, int indent);
// None where there is no such file, or where it is no JSON or not worth reading: a reader of a directory that others
// write to goes on.
std::optional<nlohmann::json> read_json(const std::filesystem::path& path);

}  // namespace winnow::sweep
