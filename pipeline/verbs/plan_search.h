// Runs `winnow search --method plan` on every rank.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "pipeline/run/options/options.h"
#include "results/plan/searched_plans.h"

namespace winnow::verbs {

// Returns what rank 0 prints on stdout for a finished search.
using PlanPresenter = std::function<std::string(const plan::SearchedPlans&, const storage::Provenance&)>;

// Starts MPI, reads the calibration, measures step by step what the run directory lacks, and writes and prints the
// result. Every plan that was measured is kept in the run directory, so that the same command, stopped, goes on in the
// middle of a step, and one with other budgets, beam or steps with what they share. Failures are as with calibrate().
ExitCode search_plans(const run::RunOptions& options, const PlanPresenter& present);

}  // namespace winnow::verbs
