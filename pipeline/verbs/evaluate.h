// Runs `winnow evaluate` on every rank.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "pipeline/run/options/options.h"
#include "results/evaluation/evaluation.h"

namespace winnow::verbs {

// Returns what rank 0 prints on stdout for a finished evaluation: the table, or JSON.
using EvaluationPresenter = std::function<std::string(const evaluation::EvaluationResults&)>;

// Starts MPI, measures what the run directory lacks, and writes and prints the result. Failures are as with
// calibrate().
ExitCode evaluate(const run::RunOptions& options, const EvaluationPresenter& present);

}  // namespace winnow::verbs
