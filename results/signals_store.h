// The signals of layers in a results file, and the figures with a status that all its groups share.
#pragma once

#include <string>

#include "results/hdf5.h"
#include "results/schema.h"

namespace winnow {

// A scalar; not defined: NaN with the attribute `status`.
void write_figure(hdf5::Group& group, const std::string& name, const Figure& figure, const std::string& long_name);
void write_estimate(hdf5::Group& group, const std::string& name, const std::string& interval_prefix,
                    const Estimate& estimate, const std::string& long_name);
Figure read_figure(const hdf5::Group& group, const std::string& name);
Estimate read_estimate(const hdf5::Group& group, const std::string& name, const std::string& interval_prefix);

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
