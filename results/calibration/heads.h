// Key heads that were windowed alone: their ranking, and how they agree with their layers.
#pragma once

#include <optional>
#include <string>

#include "base/json_values.h"
#include "results/calibration/results.h"

namespace winnow::calibration {

// Returns the figures of heads; none where no head was measured. `columns` are those of the layers.
std::optional<HeadStatistics> compare_heads(const Measurement& measurement, const Columns& columns,
                                            const StatisticsOptions& options);

// Returns the block of the table: the heads that cost most, and the agreement with their layers.
std::string heads_block(const Results& results);
// Returns the same for JSON, of all heads.
Json heads_object(const Results& results);

}  // namespace winnow::calibration
