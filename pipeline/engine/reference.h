// A second, naive implementation of the whole forward pass in float64, one token after another, that shares no
// arithmetic with the backends, the layer or the sweep: `winnow selftest` and the tests compare against it.
#pragma once

#include <cstdint>
#include <span>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/safetensors.h"
#include "pipeline/engine/sweep.h"

namespace winnow::engine {

// Scores tokens[answer_start, T) when each layer obeys its window and its type of keys and values; token_nll_nats is
// always filled. Time and memory are those of a toy: T^2 * layers * hidden, every weight in float64. Throws
// Error(kBadData) when the checkpoint lacks a tensor.
Score reference_score(const model::ModelConfig& config, const model::Checkpoint& checkpoint,
                      std::span<const int32_t> tokens, int64_t answer_start, const LayerWindows& windows);

}  // namespace winnow::engine
