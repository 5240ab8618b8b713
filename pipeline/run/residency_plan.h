// Decides which layers stay in a backend's memory, for --stream.
#pragma once

#include <cstdint>
#include <string>

#include "model/layer_ring.h"

namespace winnow::run {

// What a rank needs besides, and what it has, bytes.
struct ResidencyNeeds {
  int64_t n_layers = 0;
  int64_t layer_bytes = 0;        // of the largest layer
  int64_t shared_bytes = 0;       // of weights outside the layers
  int64_t packed_bytes = 0;       // of packed weights on their way, where layers are streamed
  int64_t least_sweep_bytes = 0;  // of the longest example with a single lane
  int64_t wave_bytes = 0;         // of sweeps that go through a layer together, while that of the next is copied
  int64_t limit_bytes = 0;
};

// Buffers that streamed layers go through: one is computed with while the other is filled.
inline constexpr int64_t kStreamBuffers = 2;

// Returns the layers that stay. stream: "off" keeps all; "auto" keeps all where they fit beside the smallest sweep, and
// else as many as a wave leaves room for; "on" keeps none. Throws Error(kOutOfMemory) with the numbers where "off" or
// "on" does not fit; where nothing does, "auto" leaves it to the planner of units, who may find none missing.
model::Residency plan_residency(const ResidencyNeeds& needs, const std::string& stream);

}  // namespace winnow::run
