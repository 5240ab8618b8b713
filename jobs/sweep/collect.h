// Runs `winnow sweep collect`: the results of all cells of a sweep in one file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "jobs/sweep/cells.h"

namespace winnow::sweep {

// Writes a collection to `file`, whole or not at all, and returns what to print: a table, or JSON. It has a row for
// each cell and seed, with its results where they can be read; a results file that is damaged, of another schema or of
// other settings is listed as "unusable", with the reason. `states` by cell. Throws Error(kCannotCreate | kIoError).
std::string collect(const Sweep& sweep, const std::vector<CellStatus>& states, const std::filesystem::path& file,
                    bool as_json);

}  // namespace winnow::sweep
