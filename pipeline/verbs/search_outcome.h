// Finishes a search that has measured all: plays it again on the finished cells and writes it. Rank 0 only.
#pragma once

#include "pipeline/run/run.h"
#include "pipeline/verbs/search.h"

namespace winnow::verbs {

search::SearchPlan plan_of(const run::RunOptions& options, const run::Inputs& inputs);
// This command's search, with its provenance.
struct FinishedSearch {
  search::SearchResults results;
  storage::Provenance provenance;
};
// Writes all searches of the directory to results.h5 and returns that of this command.
FinishedSearch finish_search(run::MeasuringRun& run, const run::RunOptions& options);

}  // namespace winnow::verbs
