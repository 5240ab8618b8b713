// One decoder layer over rows of a stack: what Transformers' Qwen3DecoderLayer and its siblings compute.
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::model {

// Attention itself is not here: which keys a row sees, and whose, is the sweep's matter
// (pipeline/engine/sweep_pass.cc).
class DecoderLayer {
 public:
  // All references must outlive this.
  DecoderLayer(kernels::Ops& ops, const ModelConfig& config);
  // Backend memory that this takes, bytes.
  static int64_t workspace_bytes(const kernels::Ops& ops, const ModelConfig& config);

  // From n_rows residual rows x (n_rows, hidden): keys and values into `kv` unless it is null, queries into q
  // (n_rows, n_heads, head_dim) unless it is null.
  void attention_input(const LayerWeights& weights, const void* x, const kernels::RowAngles& angles, int64_t n_rows,
                       void* kv, void* q);
  // The rest of the layer: x += W_o attention, then x += MLP(norm(x)); attention (n_rows, q_dim), x (n_rows, hidden).
  // Null attention: nothing is added, as if the layer had none.
  void finish(const LayerWeights& weights, const void* attention, void* x, int64_t n_rows);

 private:
  kernels::Ops& ops_;
  const ModelConfig& config_;
  std::unique_ptr<kernels::Buffer> normed_;  // (chunk, hidden)
  std::unique_ptr<kernels::Buffer> wide_;    // (chunk, max(2 * kv_dim, 2 * ffn))
  std::unique_ptr<kernels::Buffer> gated_;   // (chunk, ffn)
};

}  // namespace winnow::model
