// The evaluate driver: what `winnow evaluate` does on every rank.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "pipeline/run/options.h"
#include "results/evaluation/evaluation.h"

namespace winnow::verbs {

// The flags of evaluate besides those that all verbs share.
struct EvaluateOptions : run::RunOptions {
  std::vector<std::string> patterns;  // as results/selection/pattern.h parses them, in the order of the result
  std::string baseline;               // one of them by name; empty: none
  int64_t generate = 0;               // new tokens that every pattern writes freely, at most; 0: none
  std::string stop_tokens;            // "1,2" or "none"; empty: those of the checkpoint
  std::filesystem::path responses;    // JSONL file of what was written; empty: none
};

// What rank 0 prints on stdout for a finished evaluation: the table, or JSON.
using EvaluationPresenter = std::function<std::string(const evaluation::EvaluationResults&)>;

// Starts MPI, measures what the run directory lacks, and writes and prints the result. Failures are as with
// calibrate().
ExitCode evaluate(const EvaluateOptions& options, const EvaluationPresenter& present);

}  // namespace winnow::verbs
