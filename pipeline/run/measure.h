// Measures on one rank: takes a unit, or several short ones together, sweeps, and puts each on disk, until nothing is
// left or the run stops.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/checkpoint_identity.h"
#include "model/weights.h"
#include "pipeline/run/inputs.h"
#include "pipeline/run/plan.h"
#include "pipeline/run/score_table.h"
#include "pipeline/run/work_loop.h"

namespace winnow::run {

struct MeasureContext {
  const Inputs& inputs;
  kernels::Ops& ops;
  model::ModelWeights& weights;
  model::CheckpointWatch& watch;
  std::filesystem::path shards;  // directory
  std::string measurement;       // identity hash
  std::string made_by;           // "rank 1 on node07"
  bool per_token = false;
  int64_t max_bytes = 0;     // memory of a rank
  int64_t weight_bytes = 0;  // of that, for the weights
  int64_t stack_rows = 0;    // base rows that are worth computing together
  int64_t n_ranks = 1;
  int64_t rank = 0;
  engine::PrefixCache* prefixes = nullptr;  // of this rank, where inputs.prefixes has any
};

// Work of this rank.
struct MeasureReport {
  int64_t units = 0;
  double busy_seconds = 0.0;
  int64_t predicted_bytes = 0;  // of its largest sweep, weights included
};

// Fills this rank's cells. Where prefixes are kept, units of the first data set are not handed out: each rank takes
// those of the examples that it owns. Ends the job for what the sweep or the disk throws, with the example named, and
// for weights that have changed since the run began: what was computed since is not kept. Collective. Throws
// AgreedFailure.
MeasureReport measure_units(const MeasureContext& context, std::span<const WorkUnit> units, WorkLoop& loop,
                            std::vector<ScoreTable>& cells);

}  // namespace winnow::run
