#include "model/layer.h"

#include <algorithm>

namespace winnow {

namespace {

int64_t wide_cols(const ModelConfig& config) { return std::max(2 * config.heads.kv_dim(), 2 * config.ffn); }

int64_t chunk_bytes(const Backend& backend, int64_t cols) {
  return backend.chunk_rows() * cols * size_bytes(backend.activation_dtype());
}

}  // namespace

DecoderLayer::DecoderLayer(Backend& backend, const ModelConfig& config, const Matrix& cos_sin)
    : backend_(backend),
      config_(config),
      cos_sin_(cos_sin),
      normed_(backend.allocate(chunk_bytes(backend, config.hidden), "normed rows")),
      wide_(backend.allocate(chunk_bytes(backend, wide_cols(config)), "projected rows")),
      gated_(backend.allocate(chunk_bytes(backend, config.ffn), "gated rows")) {}

int64_t DecoderLayer::workspace_bytes(const Backend& backend, const ModelConfig& config) {
  return chunk_bytes(backend, config.hidden + wide_cols(config) + config.ffn);
}

void DecoderLayer::attention_input(const LayerWeights& weights, const void* x, int64_t first_row, int64_t n_rows,
                                   const KvRows& kv, void* q, int64_t q_first_row) {
  const HeadShape& heads = config_.heads;
  const int64_t end = first_row + n_rows;
  for (int64_t row = first_row; row < end; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), end - row);
    const void* rows = row_pointer(backend_, x, row - first_row, config_.hidden);
    backend_.rms_norm(rows, weights.input_norm, config_.rms_eps, normed_->data(), n);
    backend_.linear(normed_->data(), weights.kv, weights.kv_bias, wide_->data(), n, false);
    backend_.store_kv(wide_->data(), heads, weights.k_norm, cos_sin_, row, n, kv);
    const int64_t q_row = std::max(row, q_first_row);
    if (q_row >= row + n) continue;
    const void* q_input = row_pointer(backend_, normed_->data(), q_row - row, config_.hidden);
    void* q_rows = row_pointer(backend_, q, q_row - q_first_row, heads.q_dim());
    backend_.linear(q_input, weights.q, weights.q_bias, q_rows, row + n - q_row, false);
    backend_.rope(q_rows, heads, weights.q_norm, cos_sin_, q_row, row + n - q_row);
  }
}

void DecoderLayer::finish(const LayerWeights& weights, const void* attention, void* x, int64_t n_rows) {
  for (int64_t row = 0; row < n_rows; row += backend_.chunk_rows()) {
    const int64_t n = std::min(backend_.chunk_rows(), n_rows - row);
    void* rows = row_pointer(backend_, x, row, config_.hidden);
    backend_.linear(row_pointer(backend_, attention, row, config_.heads.q_dim()), weights.o, weights.o_bias, rows, n,
                    true);
    backend_.rms_norm(rows, weights.post_norm, config_.rms_eps, normed_->data(), n);
    backend_.linear(normed_->data(), weights.gate_up, weights.gate_up_bias, wide_->data(), n, false);
    backend_.swiglu(wide_->data(), gated_->data(), n, config_.ffn);
    backend_.linear(gated_->data(), weights.down, weights.down_bias, rows, n, true);
  }
}

}  // namespace winnow
