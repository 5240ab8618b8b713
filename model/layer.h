// One decoder layer over rows of a stack: what Transformers' Qwen3DecoderLayer and its siblings compute.
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::model {

// Attention itself is not here: which keys a row sees, and whose, is the sweep's matter (pipeline/engine/sweep.cc).
class DecoderLayer {
 public:
  // All references must outlive this.
  DecoderLayer(kernels::Ops& ops, const ModelConfig& config);
  // Backend memory that this takes, bytes.
  static int64_t workspace_bytes(const kernels::Ops& ops, const ModelConfig& config);

  // Computes, from residual rows x (n_rows, hidden), keys and values into the first rows of `kv` unless it is empty,
  // and queries into q (n_rows, q_dim) unless it is empty.
  void attention_input(const LayerWeights& weights, kernels::ConstRows x, const kernels::RowAngles& angles,
                       kernels::KvSpan kv, kernels::Rows q);
  // Computes the rest of the layer: x += W_o attention, then x += MLP(norm(x)); attention (n_rows, q_dim), x (n_rows,
  // hidden). Empty attention: nothing is added, as if the layer had none.
  void finish(const LayerWeights& weights, kernels::ConstRows attention, kernels::Rows x);

 private:
  // Returns n rows of `cols` activations in a chunk's memory.
  kernels::Rows activations(kernels::Buffer& memory, int64_t n, int64_t cols) const;

  kernels::Ops& ops_;
  const ModelConfig& config_;
  std::unique_ptr<kernels::Buffer> normed_;  // (chunk, hidden)
  std::unique_ptr<kernels::Buffer> wide_;    // (chunk, max(2 * kv_dim, 2 * ffn))
  std::unique_ptr<kernels::Buffer> gated_;   // (chunk, ffn)
};

}  // namespace winnow::model
