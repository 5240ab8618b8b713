// The rotary table of all positions that a computation needs, in the backend's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::engine {

class RotaryTable {
 public:
  RotaryTable(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights, int64_t n_positions);
  static int64_t bytes(const model::ModelConfig& config, int64_t n_positions);

  // Returns the angles of rows at these positions, which are in the backend's memory.
  kernels::RowAngles angles(std::span<const int32_t> positions) const { return {cos_sin_, positions}; }

 private:
  std::unique_ptr<kernels::Buffer> memory_;
  kernels::Matrix cos_sin_;  // (n_positions, head_dim)
};

}  // namespace winnow::engine
