#include "pipeline/engine/rotary_table.h"

namespace winnow::engine {

int64_t RotaryTable::bytes(const model::ModelConfig& config, int64_t n_positions) {
  return n_positions * config.heads.head_dim * static_cast<int64_t>(sizeof(float));
}

RotaryTable::RotaryTable(kernels::Ops& ops, const model::ModelConfig& config, model::ModelWeights& weights,
                         int64_t n_positions)
    : memory_(ops.device().allocate(bytes(config, n_positions), "the rotary table")) {
  const std::span<const float> angles = weights.rotary_table(n_positions);
  const kernels::HostTensor table{reinterpret_cast<const std::byte*>(angles.data()),
                                  kernels::DType::kF32,
                                  {n_positions, config.heads.head_dim},
                                  "rotary table"};
  cos_sin_ = ops.device().load(table, kernels::WeightUse::kTable, memory_->bytes());
}

}  // namespace winnow::engine
