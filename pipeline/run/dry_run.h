// Predicts what a run takes, for --dry-run.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "pipeline/run/inputs.h"
#include "pipeline/run/plan.h"
#include "pipeline/run/provenance.h"

namespace winnow::run {

struct Forecast {
  int64_t n_units = 0;
  int64_t cells_missing = 0;
  int64_t cells_total = 0;
  int64_t lanes_per_example = 0;  // of the first data set: patterns beside the base
  double seconds = 0.0;           // from the first unit to the last
  double start_seconds = 0.0;     // from the start of the process to the first unit, as they were taken just now
  double text_seconds = 0.0;      // of free generation
  int64_t unit_bytes = 0;         // of the largest unit, weights included
  int64_t limit_bytes = 0;        // that a unit may take on every rank
  int64_t disk_bytes = 0;         // shards and results that are still to be written
  int64_t free_disk_bytes = -1;   // where the run directory is or will be; -1: unknown
};

// Predicts these units on n_ranks ranks.
Forecast make_forecast(const Inputs& inputs, std::span<const WorkUnit> units, const RunOptions& options,
                       int64_t n_ranks);
// Returns lines for people, or JSON; both end with a line feed.
std::string forecast_text(const Forecast& forecast, const std::vector<RankFacts>& ranks, bool json);

}  // namespace winnow::run
