// A result as JSON for machines.
#pragma once

#include <string>

#include "results/calibration/table.h"

namespace winnow::calibration {

// Returns a result as one JSON object, UTF-8, indented, ending with a newline. Undefined figures are null, with the
// reason under the same name + "_status" (per layer: "spread_status" of the object). Names are those of the file.
std::string to_json(const Results& results);

}  // namespace winnow::calibration
