// Writes and reads OUT/submissions/ID, which `winnow sweep submit` hands to its run-cells: written once, before
// anything starts.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "jobs/sweep/executor.h"

namespace winnow::sweep {

nlohmann::json cell_json(const Cell& cell);

// Makes OUT/submissions/ID with its cells.json and returns its path. ID: UTC time and a random suffix. `more` is merged
// into the top level of cells.json. Throws Error(kCannotCreate | kIoError).
std::filesystem::path write_submission(const std::filesystem::path& output, const std::vector<Cell>& cells,
                                       const nlohmann::json& more = nlohmann::json::object());
// Reads the cells of a submission. Throws Error(kNoInput | kBadData).
std::vector<Cell> read_submission(const std::filesystem::path& submission);

}  // namespace winnow::sweep
