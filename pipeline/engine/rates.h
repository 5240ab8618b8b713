// The speed of this rank, measured in a moment, and the time of a sweep at that speed.
#pragma once

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/engine/sweep_plan.h"

namespace winnow::engine {

// Seconds per piece of work. They serve predictions and the order of units only: no result depends on them.
struct Rates {
  double per_layer_load = 0.0;      // weights of one layer into the backend
  double per_row_layer = 0.0;       // one row through everything of one layer but attention
  double per_attention_pair = 0.0;  // one (row, key) pair, all heads
  double per_score_row = 0.0;       // one answer row through the head
};

// Times each kind of work for at least a few milliseconds. Takes well under a second for small models, about 2 s for
// one of 4B parameters.
Rates measure_rates(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights);

// Best rates of the device: a large product by the backend, and a large copy, bytes read and written.
struct Ceilings {
  double flop_per_second = 0.0;
  double bytes_per_second = 0.0;
};
Ceilings measure_ceilings(kernels::Ops& ops);

// Returns the seconds of a sweep with that plan, for n_answer scored tokens.
double predict_seconds(const Rates& rates, const model::ModelConfig& config, const SweepPlan& plan, int64_t n_answer);

}  // namespace winnow::engine
