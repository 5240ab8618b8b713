// Writes and reads results.h5 as a whole. The schema is in README.md in this folder.
#pragma once

#include <filesystem>

#include "results/calibration/results.h"

namespace winnow::calibration {

// Returns the file that a command line means by a result: the results.h5 of a run directory, or `path` itself.
std::filesystem::path results_file(const std::filesystem::path& path);

// Writes the file whole or not at all (base/atomic_file.h); replaces one that is there. Throws Error(kIoError |
// kCannotCreate), and Error(kInternal) for names or tables that do not fit the schema.
void write_results(const std::filesystem::path& path, const Results& results);

// Reads a file that write_results wrote: writing it again gives equal content. Throws Error(kNoInput | kBadData |
// kIoError) naming file, variable, expected and found. Groups and variables beyond the schema are ignored.
Results read_results(const std::filesystem::path& path);

}  // namespace winnow::calibration
