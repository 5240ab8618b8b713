// A result as JSON for machines.
#pragma once

#include <string>

#include "base/json_values.h"
#include "results/calibration/table.h"

namespace winnow::calibration {

// Returns a result as one JSON object, UTF-8, indented, ending with a newline. Undefined figures are null, with the
// reason under the same name + "_status" (per layer: "spread_status" of the object). Names are those of the file.
std::string to_json(const Results& results);

// Adds to the object of a layer, or head, what its ranking says besides the mean: error, intervals and drops.
void put_spread_and_drops(const Ranking& ranking, std::size_t column, Json& object);

}  // namespace winnow::calibration
