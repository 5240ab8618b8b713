// Finishes a search that has measured all: plays it again on the finished cells and writes it. Rank 0 only.
#pragma once

#include "pipeline/run/run.h"
#include "pipeline/verbs/search.h"

namespace winnow::verbs {

// Data sets of a search: the calibration set as the search measures it, and the same examples with every row under the
// window.
inline constexpr std::size_t kSearched = 0;
inline constexpr std::size_t kVerified = 1;

search::SearchPlan plan_of(const run::RunOptions& options, const run::Inputs& inputs);
// Returns the means of a pattern over the examples of a data set, whose cells must all be there.
search::PatternMeans means_of(const run::MeasuringRun& run, std::size_t data_set, const engine::Pattern& pattern);

// Returns this command's entry among the searches that RUN_DIR/run.json remembers, with the options put in.
nlohmann::json& search_entry(run::MeasuringRun& run, const run::RunOptions& options);
// This command's search, with its provenance.
struct FinishedSearch {
  search::SearchResults results;
  storage::Provenance provenance;
};
// Writes all searches of the directory to results.h5 and returns that of this command.
FinishedSearch finish_search(run::MeasuringRun& run, const run::RunOptions& options);

}  // namespace winnow::verbs
