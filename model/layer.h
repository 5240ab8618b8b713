// One decoder layer over rows of a stack: what Transformers' Qwen3DecoderLayer and its siblings compute.
#pragma once

#include <memory>

#include "kernels/backend.h"
#include "model/config.h"
#include "model/weights.h"

namespace winnow {

// Pointer to row `row` of activations with `cols` columns.
inline void* row_pointer(const Backend& backend, void* data, int64_t row, int64_t cols) {
  return static_cast<std::byte*>(data) + row * cols * size_bytes(backend.activation_dtype());
}
inline const void* row_pointer(const Backend& backend, const void* data, int64_t row, int64_t cols) {
  return static_cast<const std::byte*>(data) + row * cols * size_bytes(backend.activation_dtype());
}

// Attention itself is not here: which keys a row sees, and whose, is the sweep's matter (pipeline/sweep.cc).
class DecoderLayer {
 public:
  // cos_sin: model/rope.h's table in the backend's memory. All references must outlive this.
  DecoderLayer(Backend& backend, const ModelConfig& config, const Matrix& cos_sin);
  // Backend memory that this takes, bytes.
  static int64_t workspace_bytes(const Backend& backend, const ModelConfig& config);

  // From the residual rows [first_row, first_row + n_rows) at x (n_rows, hidden): keys and values of all of them into
  // `kv`, and queries of the rows from q_first_row on into q (first_row + n_rows - q_first_row, n_heads, head_dim).
  void attention_input(const LayerWeights& weights, const void* x, int64_t first_row, int64_t n_rows, const KvRows& kv,
                       void* q, int64_t q_first_row);
  // The rest of the layer: x += W_o attention, then x += MLP(norm(x)); attention (n_rows, q_dim), x (n_rows, hidden).
  void finish(const LayerWeights& weights, const void* attention, void* x, int64_t n_rows);

 private:
  Backend& backend_;
  const ModelConfig& config_;
  Matrix cos_sin_;
  std::unique_ptr<Buffer> normed_;  // (chunk, hidden)
  std::unique_ptr<Buffer> wide_;    // (chunk, max(2 * kv_dim, 2 * ffn))
  std::unique_ptr<Buffer> gated_;   // (chunk, ffn)
};

}  // namespace winnow
