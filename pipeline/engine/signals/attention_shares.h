// Shares of a softmax: the part of rows' attention that stays on a set of keys.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {

class AttentionShares {
 public:
  // Asks for the log-sum-exp of rows [first_row, end_row) of the sequence over each set of keys. sets: those of one row
  // after another, equally many each. The results' memory must outlive this.
  AttentionShares(const LayerState& state, int64_t first_row, int64_t end_row,
                  const std::vector<kernels::KeySet>& sets);

  // Returns the share that set `part` has of the softmax over set `whole` and the head's sink logit, if there is one;
  // mean over the rows and the query heads of each key head; (n_kv_heads). After Device::synchronize().
  std::vector<double> means(int64_t part, int64_t whole) const;
  // Returns the mean over all heads.
  double mean(int64_t part, int64_t whole) const;

 private:
  double lse(int64_t row, int64_t set, int64_t head) const;
  // Returns the log of the softmax's denominator over a set.
  double log_denominator(int64_t row, int64_t set, int64_t head) const;

  kernels::HeadShape heads_;
  int64_t n_rows_;
  int64_t n_sets_;
  std::span<const double> lse_;         // (rows, sets, heads)
  std::span<const float> sink_logits_;  // (heads), or none
};

kernels::KeySet key_set(int64_t sinks, int64_t begin, int64_t end);

}  // namespace winnow::engine
