#include "pipeline/engine/rotary_table.h"

namespace winnow {

int64_t RotaryTable::bytes(const ModelConfig& config, int64_t n_positions) {
  return n_positions * config.heads.head_dim * static_cast<int64_t>(sizeof(float));
}

RotaryTable::RotaryTable(Backend& backend, const ModelConfig& config, ModelWeights& weights, int64_t n_positions)
    : memory_(backend.allocate(bytes(config, n_positions), "the rotary table")) {
  const std::span<const float> angles = weights.rotary_table(n_positions);
  const HostTensor table{reinterpret_cast<const std::byte*>(angles.data()),
                         DType::kF32,
                         {n_positions, config.heads.head_dim},
                         "rotary table"};
  cos_sin_ = backend.load(table, WeightUse::kTable, memory_->data());
}

}  // namespace winnow
