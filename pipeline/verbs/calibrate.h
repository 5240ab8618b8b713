// The calibrate driver: what `winnow calibrate` does on every rank.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "pipeline/run/options.h"
#include "results/calibration/results.h"

namespace winnow::verbs {

// What rank 0 prints on stdout for a finished run: the table, or JSON.
using Presenter = std::function<std::string(const calibration::Results&)>;

// Starts MPI, measures what the run directory lacks, and writes and prints the result. Every failure has been printed,
// once for the whole job, when this returns; the value is the exit code of this rank. Throws only where MPI itself
// cannot start (Error).
ExitCode calibrate(const run::RunOptions& options, const Presenter& present);

}  // namespace winnow::verbs
