// Statistics of the signals of layers: their agreement with each other, and how their choices do on examples that they
// have not seen. Pure functions of the measurement.
#pragma once

#include <optional>
#include <span>

#include "results/calibration/measurement.h"
#include "results/calibration/statistics.h"

namespace winnow::calibration {

// Compares the signals; none where no signal besides NLL and matches was measured.
std::optional<SignalComparison> compare_signals(const Measurement& measurement, const StatisticsOptions& options);

// Returns true if one of the values is not a number.
bool has_nan(std::span<const double> values);

}  // namespace winnow::calibration
