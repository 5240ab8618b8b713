// Recognises files that winnow wrote, by their content, whatever their names.
#pragma once

#include <filesystem>
#include <string>

#include "base/output_path.h"

namespace winnow {

// Returns true if the file is a JSON object with this `format`; false for what cannot be read.
bool is_own_json(const std::filesystem::path& path, const std::string& format);
// Returns true if the first line, or else the whole file, is a JSON object that has all of `keys`.
bool is_json_with(const std::filesystem::path& path, const std::vector<std::string>& keys);

// Describes a file of generated answers, one JSON object a line, for check_outputs().
Output responses_output(const std::string& flag, const std::filesystem::path& path);

}  // namespace winnow
