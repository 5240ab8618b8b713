// Finishes a run whose cells are all there: tables, statistics, results.h5. Rank 0 only.
#pragma once

#include <optional>
#include <vector>

#include "pipeline/run/provenance.h"
#include "pipeline/run/run_directory.h"
#include "pipeline/run/score_table.h"
#include "results/calibration/results.h"

namespace winnow::verbs {

struct FinishedRun {
  const run::RunOptions& options;
  run::RunSummary summary;
  const std::vector<run::ScoreTable>& cells;  // by data set, all there that are wanted
  std::optional<race::RaceRecord> race;       // of --until
};

// Computes and writes RUN_DIR/results.h5 of these cells and statistics settings, or reads it where the record says that
// it is up to date. Throws Error.
calibration::Results finish_run(const FinishedRun& run, run::RunDirectory& directory);

}  // namespace winnow::verbs
