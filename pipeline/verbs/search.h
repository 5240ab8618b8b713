// Runs `winnow search` on every rank.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "pipeline/run/options/options.h"
#include "results/search/results.h"

namespace winnow::verbs {

// Returns what rank 0 prints on stdout for a finished search.
using SearchPresenter = std::function<std::string(const search::SearchResults&, const storage::Provenance&)>;

// Starts MPI, measures step by step what the run directory lacks, and writes and prints the result. Every pattern that
// was measured is kept in the run directory, so that the same command, stopped, goes on in the middle of a step, and
// another method goes on with what they share. Failures are as with calibrate().
ExitCode search(const run::RunOptions& options, const SearchPresenter& present);

}  // namespace winnow::verbs
