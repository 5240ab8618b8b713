// What is left when a search has measured all: it is played again on the finished cells, and written. Rank 0 only.
#pragma once

#include "pipeline/run/run.h"
#include "pipeline/verbs/search.h"

namespace winnow::verbs {

// Data sets of a search: the calibration set as the search measures it, and the same examples with every row under the
// window.
inline constexpr std::size_t kSearched = 0;
inline constexpr std::size_t kVerified = 1;

search::SearchPlan plan_of(const run::RunOptions& options, int64_t n_layers);
// Means of patterns over the examples of a data set, all of whose cells must be there.
search::PatternMeans means_of(const run::MeasuringRun& run, std::size_t data_set, const engine::Pattern& pattern);

// RUN_DIR/run.json remembers the searches of the directory: `entry` of it is this command's.
nlohmann::json& search_entry(run::MeasuringRun& run, const run::RunOptions& options);
// Writes all searches of the directory to results.h5 and returns that of this command.
struct FinishedSearch {
  search::SearchResults results;
  storage::Provenance provenance;
};
FinishedSearch finish_search(run::MeasuringRun& run, const run::RunOptions& options);

}  // namespace winnow::verbs
