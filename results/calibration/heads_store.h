// Key heads in the results file.
#pragma once

#include "results/calibration/results.h"
#include "results/storage/hdf5.h"

namespace winnow::calibration {

// Writes /heads, where heads were measured.
void write_heads(storage::Group& root, const Results& results);
// Reads it into the measurement and the statistics, where it is there. The layers must have been read. Throws
// Error(kBadData) for shapes that do not fit them.
void read_heads(const storage::Group& root, Results& results);

}  // namespace winnow::calibration
