// The signals of layers in a results file.
#pragma once

#include <string>

#include "results/calibration/results.h"
#include "results/storage/hdf5.h"

namespace winnow {

// The optional variables of /calibration and /control/NAME, whose dimensions must be there.
void write_signals(hdf5::Group& group, const Measurement& measurement);
void read_signals(const hdf5::Group& group, Measurement& measurement);
// Those of /ranking.
void write_signal_means(hdf5::Group& group, const Ranking& ranking);
void read_signal_means(const hdf5::Group& group, Ranking& ranking);
// /signals.
void write_comparison(hdf5::Group group, const SignalComparison& comparison);
SignalComparison read_comparison(const hdf5::Group& group);

}  // namespace winnow
