// Makes the cells of a sweep file: models x datasets x windows x sinks x decode rules, without those excluded.
#pragma once

#include <string>
#include <vector>

#include "jobs/sweep/executor.h"
#include "jobs/sweep/sweep_file.h"
#include "pipeline/run/options/options.h"

namespace winnow::sweep {

// A cell with the options of its verb, for the price.
struct SweepCell {
  Cell cell;
  run::RunOptions options;
};

struct Sweep {
  SweepFile file;
  std::vector<SweepCell> cells;    // each run directory once, in the order of the file
  std::vector<std::string> notes;  // combinations that are the measurement of another cell
};

// Reads the file and expands it. Nothing is written. Throws Error(kUsage | kNoInput) with all that is wrong, each with
// line and column; Error(kNoInput | kBadData) for a file that cannot be read.
Sweep read_sweep(const std::filesystem::path& path);
// Does the same with a text in place of the file's.
Sweep parse_sweep(const std::filesystem::path& path, const std::string& text);

// Adds the cells of sweep.file, and appends to `problems` what cannot be run: missing files, contradictions.
void expand(Sweep& sweep, std::vector<Diagnostic>& problems);

// Returns the files of selections among the patterns of an evaluate cell.
std::vector<std::filesystem::path> selections_of(const SweepCell& cell);
// Returns the coordinates by the names that exclude and match use.
std::map<std::string, std::string> coordinates_of(const Cell& cell);
// Returns "model=a dataset=long window=64 sinks=2 decode=windowed".
std::string describe(const Cell& cell);

}  // namespace winnow::sweep
