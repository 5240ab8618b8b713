// Runs `winnow calibrate` on every rank.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "pipeline/run/options/options.h"
#include "results/calibration/results.h"

namespace winnow::verbs {

// Returns what rank 0 prints on stdout for a finished run: the table, or JSON.
using Presenter = std::function<std::string(const calibration::Results&)>;

// Starts MPI, measures what the run directory lacks, and writes and prints the result. Returns the exit code of this
// rank; every failure has then been printed, once for the whole job. Throws Error only where MPI itself cannot start.
ExitCode calibrate(const run::RunOptions& options, const Presenter& present);

}  // namespace winnow::verbs
