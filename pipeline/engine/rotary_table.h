// The rotary table of all positions that a computation needs, in the backend's memory.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow {

class RotaryTable {
 public:
  RotaryTable(Backend& backend, const ModelConfig& config, ModelWeights& weights, int64_t n_positions);
  static int64_t bytes(const ModelConfig& config, int64_t n_positions);

  // Of rows at these positions, (rows) int32 in the backend's memory.
  RowAngles angles(Buffer& positions) const { return {cos_sin_, static_cast<const int32_t*>(positions.data())}; }

 private:
  std::unique_ptr<Buffer> memory_;
  Matrix cos_sin_;  // (n_positions, head_dim)
};

}  // namespace winnow
