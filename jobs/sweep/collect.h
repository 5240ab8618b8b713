// One file over all cells of a sweep.
#pragma once

#include <filesystem>
#include <vector>

#include "jobs/sweep/executor.h"

namespace winnow {

// Throws Error.
void collect(const std::vector<Cell>& cells, const std::filesystem::path& file);

}  // namespace winnow
