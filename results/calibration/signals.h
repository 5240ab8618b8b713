// Statistics of the signals of layers: how they agree with each other, and whether what they select holds on examples
// that they have not seen. Pure functions of the measurement.
#pragma once

#include <optional>
#include <span>

#include "results/calibration/measurement.h"
#include "results/calibration/statistics.h"

namespace winnow::calibration {

// none where no signal besides NLL and matches was measured.
std::optional<SignalComparison> compare_signals(const Measurement& measurement, const StatisticsOptions& options);

// True where one of the values is not a number.
bool has_nan(std::span<const double> values);

}  // namespace winnow::calibration
