#include "pipeline/engine/sweep_plan.h"

#include <algorithm>
#include <vector>

#include "kernels/window.h"
#include "pipeline/engine/signals/functions.h"
#include "pipeline/engine/sweep_layout.h"

namespace winnow::engine {

namespace {

// attention_pairs() of layers, each counted once: they have few windows among them. Of heads that see unlike keys the
// mean, which need not be whole.
class Pairs {
 public:
  explicit Pairs(int64_t n_rows) : n_rows_(n_rows) {}
  int64_t of(const LayerWindow& layer, int64_t first_row) {
    const int64_t windowed = of(layer.window, first_row);
    const auto n_heads = static_cast<int64_t>(layer.windowed_heads.size());
    if (n_heads == 0) return windowed;
    const auto n_windowed = std::count(layer.windowed_heads.begin(), layer.windowed_heads.end(), true);
    return (n_windowed * windowed + (n_heads - n_windowed) * of(kernels::full_attention(), first_row)) / n_heads;
  }

 private:
  int64_t of(const kernels::Window& window, int64_t first_row) {
    for (const Known& known : known_) {
      if (known.first_row == first_row && known.window == window) return known.pairs;
    }
    known_.push_back({window, first_row, kernels::attention_pairs(window, first_row, n_rows_)});
    return known_.back().pairs;
  }

  struct Known {
    kernels::Window window;
    int64_t first_row;
    int64_t pairs;
  };
  int64_t n_rows_;
  std::vector<Known> known_;
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
                 .lane_first_row = range.padded_rows,
                 .first_score_row = range.first_score_row};
  Pairs pairs(range.n_rows);
  for (const LayerWindow& layer : request.base) {
    plan.row_layers += range.padded_rows - range.base_first_row;
    plan.attention_pairs += pairs.of(layer, range.base_first_row);
  }
  for (std::size_t v = 0; v < request.variants.size(); ++v) {
    const LayerWindows& variant = request.variants[v];
    const int64_t fork_layer = fork_layer_of(request.base, variant);
    if (fork_layer == config.n_layers) continue;
    plan.attention_pairs += signal_pairs(request);
    const int64_t lane_first_row = range.lane_first_row[v];
    plan.lane_first_row = std::min(plan.lane_first_row, lane_first_row);
    const bool has_windowed = range.has_lane(v);
    const bool has_removed = range.removed_first_row < range.padded_rows;
    plan.n_lanes += (has_windowed ? 1 : 0) + (has_removed ? 1 : 0);
    plan.row_layers +=
        (config.n_layers - fork_layer) * (2 * range.padded_rows - lane_first_row - range.removed_first_row);
    for (auto l = static_cast<std::size_t>(fork_layer); l < request.base.size(); ++l) {
      if (has_windowed) plan.attention_pairs += pairs.of(variant[l], lane_first_row);
      if (has_removed && static_cast<int64_t>(l) > fork_layer) {
        plan.attention_pairs += pairs.of(request.base[l], range.removed_first_row);
      }
    }
  }
  return plan;
}

}  // namespace winnow::engine
