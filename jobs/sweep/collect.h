// `winnow sweep collect`: the results of all cells of a sweep in one file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "jobs/sweep/cells.h"

namespace winnow {

// Writes the collection to `file`, whole or not at all, and returns what to print: a table, or JSON. Throws
// Error(kCannotCreate | kIoError).
std::string collect(const Sweep& sweep, const std::vector<CellStatus>& states, const std::filesystem::path& file,
                    bool as_json);

}  // namespace winnow
