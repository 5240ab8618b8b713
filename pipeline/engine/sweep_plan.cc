// The work of a sweep, for the cost model.

#include <algorithm>

#include "kernels/profiled_backend.h"
#include "pipeline/engine/signals/functions.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/engine/sweep_layout.h"

namespace winnow::engine {

namespace {

// Pairs of (row, key) of rows [first_row, n_rows), by whether the layer is windowed.
struct Pairs {
  int64_t full;
  int64_t windowed;
  Pairs(const kernels::Window& window, int64_t first_row, int64_t n_rows)
      : full(kernels::attention_pairs(kernels::full_attention(), first_row, n_rows)),
        windowed(kernels::attention_pairs(window, first_row, n_rows)) {}
  int64_t of(bool is_windowed) const { return is_windowed ? windowed : full; }
};

// Keys that the queries of a layer's signals look at.
int64_t signal_pairs(const SweepRequest& request) {
  const auto n_tokens = static_cast<int64_t>(request.tokens.size());
  return signal_queries(request.signals, n_tokens, request.answer_start) * n_tokens;
}

}  // namespace

SweepPlan plan_sweep(const model::ModelConfig& config, const SweepRequest& request, int64_t row_tile) {
  const RowRange range = row_range(config, request, row_tile);
  SweepPlan plan{.n_rows = range.n_rows,
                 .padded_rows = range.padded_rows,
                 .lane_first_row = range.lane_first_row,
                 .first_score_row = range.first_score_row};
  const Pairs base_pairs(request.window, range.base_first_row, range.n_rows);
  for (const bool is_windowed : request.base) {
    plan.row_layers += range.padded_rows - range.base_first_row;
    plan.attention_pairs += base_pairs.of(is_windowed);
  }
  const Pairs lane_pairs(request.window, range.lane_first_row, range.n_rows);
  const Pairs removed_pairs(request.window, range.removed_first_row, range.n_rows);
  for (const Pattern& variant : request.variants) {
    const int64_t birth = birth_layer(request.base, variant);
    if (birth == config.n_layers) continue;
    plan.attention_pairs += signal_pairs(request);
    const bool has_windowed = range.lane_first_row < range.padded_rows;
    const bool has_removed = range.removed_first_row < range.padded_rows;
    plan.n_lanes += (has_windowed ? 1 : 0) + (has_removed ? 1 : 0);
    plan.row_layers +=
        (config.n_layers - birth) * (2 * range.padded_rows - range.lane_first_row - range.removed_first_row);
    for (auto l = static_cast<std::size_t>(birth); l < request.base.size(); ++l) {
      if (has_windowed) plan.attention_pairs += lane_pairs.of(variant[l]);
      if (has_removed && static_cast<int64_t>(l) > birth) plan.attention_pairs += removed_pairs.of(request.base[l]);
    }
  }
  return plan;
}

}  // namespace winnow::engine
