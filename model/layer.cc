#include "model/layer.h"

#include <algorithm>

namespace winnow::model {

namespace {

int64_t wide_cols(const ModelConfig& config) { return std::max(2 * config.heads.kv_dim(), 2 * config.ffn); }

int64_t chunk_bytes(const kernels::Ops& ops, int64_t cols) {
  return ops.device().chunk_rows() * cols * kernels::size_bytes(ops.device().activation_dtype());
}

}  // namespace

DecoderLayer::DecoderLayer(kernels::Ops& ops, const ModelConfig& config)
    : ops_(ops),
      config_(config),
      normed_(ops.device().allocate(chunk_bytes(ops, config.hidden), "normed rows")),
      wide_(ops.device().allocate(chunk_bytes(ops, wide_cols(config)), "projected rows")),
      gated_(ops.device().allocate(chunk_bytes(ops, config.ffn), "gated rows")) {}

int64_t DecoderLayer::workspace_bytes(const kernels::Ops& ops, const ModelConfig& config) {
  return chunk_bytes(ops, config.hidden + wide_cols(config) + config.ffn);
}

void DecoderLayer::attention_input(const LayerWeights& weights, const void* x, const kernels::RowAngles& angles,
                                   int64_t n_rows, void* kv, void* q) {
  const kernels::HeadShape& heads = config_.heads;
  for (int64_t row = 0; row < n_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), n_rows - row);
    ops_.rms_norm(kernels::row_pointer(x, ops_.device().residual_dtype(), row, config_.hidden), weights.input_norm,
                  config_.rms_eps, normed_->data(), n);
    if (kv != nullptr) {
      ops_.linear(normed_->data(), weights.kv, weights.kv_bias, wide_->data(), n, false);
      ops_.store_kv(wide_->data(), heads, weights.k_norm, angles.from(row), n,
                    static_cast<std::byte*>(kv) + ops_.device().kv_bytes(row, heads));
    }
    if (q != nullptr) {
      void* q_rows = kernels::row_pointer(q, ops_.device().activation_dtype(), row, heads.q_dim());
      ops_.linear(normed_->data(), weights.q, weights.q_bias, q_rows, n, false);
      ops_.rope(q_rows, heads, weights.q_norm, angles.from(row), n);
    }
  }
}

void DecoderLayer::finish(const LayerWeights& weights, const void* attention, void* x, int64_t n_rows) {
  for (int64_t row = 0; row < n_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), n_rows - row);
    void* rows = kernels::row_pointer(x, ops_.device().residual_dtype(), row, config_.hidden);
    if (attention != nullptr) {
      ops_.linear(kernels::row_pointer(attention, ops_.device().activation_dtype(), row, config_.heads.q_dim()),
                  weights.o, weights.o_bias, rows, n, true);
    }
    ops_.rms_norm(rows, weights.post_norm, config_.rms_eps, normed_->data(), n);
    ops_.linear(normed_->data(), weights.gate_up, weights.gate_up_bias, wide_->data(), n, false);
    ops_.swiglu(wide_->data(), gated_->data(), n, config_.ffn);
    ops_.linear(gated_->data(), weights.down, weights.down_bias, rows, n, true);
  }
}

}  // namespace winnow::model
