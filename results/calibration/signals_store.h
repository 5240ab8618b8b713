// The signals of layers in a results file.
#pragma once

#include <string>

#include "results/calibration/results.h"
#include "results/storage/hdf5.h"

namespace winnow::calibration {

// Why a cell of a measurement with layer_examples may be NaN.
inline constexpr const char* kBeyondLayerExamples =
    "beyond layer_examples the layer was not measured, as its place was certain";

// Write and read the optional variables of /calibration and /control/NAME, whose dimensions must be there.
void write_signals(storage::Group& group, const Measurement& measurement);
void read_signals(const storage::Group& group, Measurement& measurement);
// Write and read those of /ranking.
void write_signal_means(storage::Group& group, const Ranking& ranking);
void read_signal_means(const storage::Group& group, Ranking& ranking);
// Write and read /signals.
void write_comparison(storage::Group group, const SignalComparison& comparison);
SignalComparison read_comparison(const storage::Group& group);

}  // namespace winnow::calibration
