#include "model/layer.h"

#include <algorithm>

namespace winnow::model {

namespace {

int64_t wide_cols(const ModelConfig& config) { return std::max(2 * config.heads.kv_dim(), 2 * config.ffn); }

int64_t chunk_bytes(const kernels::Backend& backend, int64_t cols) {
  return backend.chunk_rows() * cols * kernels::size_bytes(backend.activation_dtype());
}

}  // namespace

DecoderLayer::DecoderLayer(kernels::Backend& backend, const ModelConfig& config)
    : backend_(backend),
      config_(config),
      normed_(backend.allocate(chunk_bytes(backend, config.hidden), "normed rows")),
      wide_(backend.allocate(chunk_bytes(backend, wide_cols(config)), "projected rows")),
      gated_(backend.allocate(chunk_bytes(backend, config.ffn), "gated rows")) {}

int64_t DecoderLayer::workspace_bytes(const kernels::Backend& backend, const ModelConfig& config) {
  return chunk_bytes(backend, config.hidden + wide_cols(config) + config.ffn);
}

void DecoderLayer::attention_input(const LayerWeights& weights, const void* x, const kernels::RowAngles& angles,
                                   int64_t n_rows, void* kv, void* q) {
  const kernels::HeadShape& heads = config_.heads;
  for (int64_t row = 0; row < n_rows; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), n_rows - row);
    backend_.rms_norm(kernels::row_pointer(x, backend_.residual_dtype(), row, config_.hidden), weights.input_norm,
                      config_.rms_eps, normed_->data(), n);
    if (kv != nullptr) {
      backend_.linear(normed_->data(), weights.kv, weights.kv_bias, wide_->data(), n, false);
      backend_.store_kv(wide_->data(), heads, weights.k_norm, angles.from(row), n,
                        static_cast<std::byte*>(kv) + backend_.kv_bytes(row, heads));
    }
    if (q != nullptr) {
      void* q_rows = kernels::row_pointer(q, backend_.activation_dtype(), row, heads.q_dim());
      backend_.linear(normed_->data(), weights.q, weights.q_bias, q_rows, n, false);
      backend_.rope(q_rows, heads, weights.q_norm, angles.from(row), n);
    }
  }
}

void DecoderLayer::finish(const LayerWeights& weights, const void* attention, void* x, int64_t n_rows) {
  for (int64_t row = 0; row < n_rows; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), n_rows - row);
    void* rows = kernels::row_pointer(x, backend_.residual_dtype(), row, config_.hidden);
    if (attention != nullptr) {
      backend_.linear(kernels::row_pointer(attention, backend_.activation_dtype(), row, config_.heads.q_dim()),
                      weights.o, weights.o_bias, rows, n, true);
    }
    backend_.rms_norm(rows, weights.post_norm, config_.rms_eps, normed_->data(), n);
    backend_.linear(normed_->data(), weights.gate_up, weights.gate_up_bias, wide_->data(), n, false);
    backend_.swiglu(wide_->data(), gated_->data(), n, config_.ffn);
    backend_.linear(gated_->data(), weights.down, weights.down_bias, rows, n, true);
  }
}

}  // namespace winnow::model
