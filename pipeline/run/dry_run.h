// Predicts what a run takes, for --dry-run.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pipeline/run/inputs.h"
#include "pipeline/run/plan.h"
#include "pipeline/run/provenance.h"

namespace winnow::run {

// What it takes that layers go through the backend's memory.
struct StreamForecast {
  int64_t n_streamed = 0;  // layers, of n_layers
  int64_t n_layers = 0;
  int64_t host_bytes = 0;     // of each host's memory that they come from; 0: from the checkpoint's files
  int64_t most_together = 1;  // units that go through a layer while it is there
  bool loads_beside = false;  // whether they come while others are computed
  double load_seconds = 0.0;  // of a rank, over all units, as if nothing else had to be done
  double compute_seconds = 0.0;

  // Returns what the time follows from: "compute", "copy" from the host's memory, or "read" of the checkpoint.
  const char* limit() const {
    if (compute_seconds >= load_seconds) return "compute";
    return host_bytes > 0 ? "copy" : "read";
  }
};

struct Forecast {
  int64_t n_units = 0;
  int64_t cells_missing = 0;
  int64_t cells_total = 0;
  int64_t lanes_per_example = 0;         // of the first data set: patterns beside the base
  double seconds = 0.0;                  // from the first unit to the last
  double start_seconds = 0.0;            // from the start of the process to the first unit, as they were taken just now
  double text_seconds = 0.0;             // of free generation
  int64_t unit_bytes = 0;                // of the largest unit, weights included
  int64_t limit_bytes = 0;               // that a unit may take on every rank
  int64_t disk_bytes = 0;                // shards and results that are still to be written
  int64_t free_disk_bytes = -1;          // where the run directory is or will be; -1: unknown
  std::optional<StreamForecast> stream;  // where --stream has layers go through
};

// Predicts these units on n_ranks ranks.
Forecast make_forecast(const Inputs& inputs, std::span<const WorkUnit> units, const RunOptions& options,
                       int64_t n_ranks);
// Returns lines for people, or JSON; both end with a line feed.
std::string forecast_text(const Forecast& forecast, const std::vector<RankFacts>& ranks, bool json);

}  // namespace winnow::run
