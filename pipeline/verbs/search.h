// The search driver: what `winnow search` does on every rank.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "pipeline/run/options.h"
#include "results/search/results.h"

namespace winnow::verbs {

// Rows before the answer that obey the window in a search, unless --tail-rows or --exact says otherwise.
inline constexpr int64_t kSearchTailRows = 256;

// The flags of search besides those that all verbs share. tail_rows: see kSearchTailRows.
struct SearchOptions : run::RunOptions {
  std::string method;  // greedy-forward, greedy-backward, pairs
  int64_t keep = 0;    // K; of pairs the number of candidates
  int64_t beam = 1;
  std::string objective = "nll";           // nll, exact-match, kl
  bool exact = false;                      // every row obeys the window, in every step
  std::optional<int64_t> verify;           // rejected patterns that are measured exactly, besides the best of each K
  std::optional<int64_t> verify_examples;  // the first so many examples serve for that; all
};

// What rank 0 prints on stdout for a finished search.
using SearchPresenter = std::function<std::string(const search::SearchResults&, const storage::Provenance&)>;

// Starts MPI, measures step by step what the run directory lacks, and writes and prints the result. Every pattern that
// was measured is kept in the run directory, so that the same command, stopped, goes on in the middle of a step, and
// another method goes on with what they share. Failures are as with calibrate().
ExitCode search(const SearchOptions& options, const SearchPresenter& present);

}  // namespace winnow::verbs
