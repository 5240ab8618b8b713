// One decoder layer over rows of a stack: what Transformers' Qwen3DecoderLayer and its siblings compute.
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow::model {

// Rotary angles of the rows of a stack in one layer.
struct LayerAngles {
  kernels::RowAngles keys;
  kernels::RowAngles queries;
  // Returns those of the rows from `row` on.
  LayerAngles from(int64_t row) const { return {keys.from(row), queries.from(row)}; }
};

// Attention itself is not here: which keys a row sees, and whose, is the sweep's matter
// (pipeline/engine/sweep_pass.cc).
class DecoderLayer {
 public:
  // Takes its working memory. All references must outlive this.
  DecoderLayer(kernels::Ops& ops, const ModelConfig& config);
  // Returns the backend memory that this takes, bytes.
  static int64_t workspace_bytes(const kernels::Ops& ops, const ModelConfig& config);

  // Computes, from residual rows x (n_rows, hidden), keys and values into the first rows of `kv` unless it is empty,
  // and queries into q (n_rows, q_dim) unless it is empty.
  void attention_input(const LayerWeights& weights, kernels::ConstRows x, const LayerAngles& angles, kernels::KvSpan kv,
                       kernels::Rows q);
  // Computes the rest of the layer: x += W_o attention, then x += MLP(norm(x)), with the norms, factors and order of
  // the family; attention (n_rows, q_dim), x (n_rows,
  // hidden). Empty attention: nothing is added, as if the layer had none.
  void finish(const LayerWeights& weights, kernels::ConstRows attention, kernels::Rows x);

 private:
  // Returns n rows of `cols` activations in a chunk's memory.
  kernels::Rows activations(kernels::Buffer& memory, int64_t n, int64_t cols) const;

  // Adds W input + bias, normed where there is such a norm, to residual rows.
  void add_product(kernels::ConstRows input, const kernels::Matrix& weight, const kernels::Matrix& bias,
                   const kernels::Norm& output_norm, kernels::Rows rows);

  // Adds what the MLP, or the experts, make of normed rows to residual rows.
  void run_mlp(const LayerWeights& weights, kernels::ConstRows normed, kernels::Rows rows);

  kernels::Ops& ops_;
  const ModelConfig& config_;
  std::unique_ptr<kernels::Buffer> normed_;  // (chunk, hidden)
  std::unique_ptr<kernels::Buffer> wide_;    // (chunk, max(2 * kv_dim, 2 * ffn))
  std::unique_ptr<kernels::Buffer> gated_;   // (chunk, ffn)
  std::unique_ptr<kernels::Buffer> delta_;   // (chunk, hidden), or empty
};

}  // namespace winnow::model
