// The choice of `winnow select --per-kv-head`: the key heads that keep full attention, beside the layers that would
// take the same memory. A pure function of the tables.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "results/selection/select_input.h"
#include "results/selection/selection.h"

namespace winnow::selection {

// Predicted loss, nats per token: the sum of what is windowed costs alone, with its 95 % percentile bootstrap interval
// over examples, NaN for one example.
struct Prediction {
  double loss = 0.0;
  double ci_low = 0.0;
  double ci_high = 0.0;
};

// Choices of equal memory. All keys and values of a head take the same, so that the best heads by the sum of their
// deltas are those with the largest, exactly.
struct HeadChoice {
  int64_t keep = 0;                  // K: layers with full attention that take as much memory as these heads
  std::vector<bool> windowed_heads;  // (n_layers * n_kv_heads), layer by layer
  std::vector<int64_t> layers;       // the K layers with the largest deltas, rising
  Prediction of_heads;
  Prediction of_layers;
  Prediction saved;  // what the layers lose less what the heads lose, over the same examples

  int64_t n_full_heads() const;
};

// Chooses K layers' worth of heads, the top K of the results where `keep` is none. Throws Error(kNoInput) where heads
// were not measured, Error(kUsage) for a K out of range.
HeadChoice choose_heads(const SelectInput& input, const std::optional<int64_t>& keep);

// Makes the selection; `origin` names the results.
Selection make_head_selection(const HeadChoice& choice, const SelectInput& input, const std::string& origin);

// Returns what is printed: heads by layer, and both predictions.
std::string to_table(const HeadChoice& choice, const Selection& selection);

}  // namespace winnow::selection
