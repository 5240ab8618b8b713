// The work of a sweep, for the cost model.
#pragma once

#include <cstdint>

#include "model/config.h"
#include "pipeline/engine/sweep.h"

namespace winnow::engine {

// Counts of what a sweep computes for one request.
struct SweepPlan {
  int64_t n_rows =
      0;  // of the base, not padded: T - 1 (the last token predicts nothing), or T (with the row of the last token)
  int64_t padded_rows = 0;      // end of the base's rows, multiple of the row tile
  int64_t lane_first_row = 0;   // R, the least of the lanes; padded_rows when no row of any differs from the base
  int64_t first_score_row = 0;  // tile that holds row a - 1
  int64_t n_lanes = 0;          // that differ from the base in a row that is computed
  int64_t row_layers = 0;       // sum over layers of rows computed
  int64_t attention_pairs = 0;  // sum over layers of (row, key) pairs computed
};
SweepPlan plan_sweep(const model::ModelConfig& config, const SweepRequest& request, int64_t row_tile);

}  // namespace winnow::engine
