// The time of a sweep: its operations, one after another, at the rates of this rank.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "pipeline/engine/generation.h"
#include "pipeline/engine/rates.h"
#include "pipeline/engine/sweep.h"
#include "pipeline/engine/sweep_layout.h"

namespace winnow::engine {

// What a sweep asks its device for, in its order, without memory: what SweepPass does, for those who count.
struct SweepSteps {
  // Rows whose queries are computed, or keys and values, or both.
  std::function<void(int64_t n_rows, bool has_keys, bool has_queries)> input;
  std::function<void(std::span<const kernels::AttentionCall>)> attend;
  std::function<void(int64_t n_rows)> finish;
  // Rows whose keys and values are rounded to a type.
  std::function<void(KvType type, int64_t n_rows)> round = [](KvType, int64_t) {};
};
// Walks through one layer.
void walk_layer(const SweepLayout& layout, int64_t layer, const SweepSteps& steps);

// Returns as many copies of a request as have stack_rows base rows together, but at least one and `most` at most,
// without regard to memory; and no more than fill the device with lanes: each further one would cost as much.
std::vector<SweepRequest> stacked(const SweepRequest& request, int64_t stack_rows, int64_t most);

// Returns the seconds of one sweep over all of the requests, whose prefixes need not be there. Throws Error(kInternal)
// for one that does not fit the model.
double predict_seconds(const Rates& rates, const model::ModelConfig& config, const kernels::Ops& ops,
                       std::span<const SweepRequest> requests);

// Returns the seconds that generate() takes where each text has that many tokens, (requests).
double predict_generation_seconds(const Rates& rates, const model::ModelConfig& config, const kernels::Ops& ops,
                                  std::span<const GenerationRequest> requests, std::span<const int64_t> n_tokens);

}  // namespace winnow::engine
