// The measuring phase of one rank: take a unit, or several short ones together, sweep, put each on disk, until nothing
// is left or the run stops.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "model/weights.h"
#include "pipeline/cells.h"
#include "pipeline/dispatch.h"
#include "pipeline/inputs.h"
#include "pipeline/plan.h"
#include "pipeline/stop.h"

namespace winnow {

struct MeasureContext {
  const Inputs& inputs;
  Backend& backend;
  ModelWeights& weights;
  std::filesystem::path shards;  // directory
  std::string measurement;       // identity hash
  std::string made_by;           // "rank 1 on node07"
  bool per_token = false;
  double grace_seconds = 0.0;
  int64_t max_bytes = 0;  // memory of a rank
  int64_t n_ranks = 1;
};

// What this rank did.
struct MeasureReport {
  int64_t units = 0;
  double busy_seconds = 0.0;
  int64_t predicted_bytes = 0;  // of its largest sweep, weights included
};

// Fills this rank's cells. Throws what the sweep or the disk throws, with the example named.
MeasureReport measure_units(const MeasureContext& context, std::span<const WorkUnit> units, Dispatcher& dispatcher,
                            const StopSignals& signals, std::vector<Cells>& cells);

}  // namespace winnow
