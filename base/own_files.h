// How winnow knows a file that it wrote itself: by what is in it, whatever its name.
#pragma once

#include <filesystem>
#include <string>

#include "base/output_path.h"

namespace winnow {

// Whether the file is a JSON object whose `format` is this one. False for what cannot be read.
bool is_own_json(const std::filesystem::path& path, const std::string& format);
// Whether its first line, or else the whole file, is a JSON object that has all of `keys`.
bool is_json_with(const std::filesystem::path& path, const std::vector<std::string>& keys);

// Generated answers: one JSON object a line.
Output responses_output(const std::string& flag, const std::filesystem::path& path);

}  // namespace winnow
