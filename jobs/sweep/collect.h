// `winnow sweep collect`: the results of all cells of a sweep in one file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "jobs/sweep/cells.h"
#include "results/campaign/collection.h"

namespace winnow::sweep {

// A row for each cell and seed, with its results where they can be read. `states` by cell. A results file that is
// damaged, of another schema or of other settings is listed as "unusable", with the reason. Writes nothing.
campaign::Collection collect_results(const Sweep& sweep, const std::vector<CellStatus>& states);

// Writes the collection to `file`, whole or not at all, and returns what to print: a table, or JSON. Throws
// Error(kCannotCreate | kIoError).
std::string collect(const Sweep& sweep, const std::vector<CellStatus>& states, const std::filesystem::path& file,
                    bool as_json);

}  // namespace winnow::sweep
