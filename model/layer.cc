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

kernels::Rows DecoderLayer::activations(kernels::Buffer& memory, int64_t n, int64_t cols) const {
  return memory.rows(ops_.device().activation_dtype(), cols).slice(0, n);
}

void DecoderLayer::attention_input(const LayerWeights& weights, kernels::ConstRows x, const kernels::RowAngles& angles,
                                   kernels::KvSpan kv, kernels::Rows q) {
  const kernels::HeadShape& heads = config_.heads;
  for (int64_t row = 0; row < x.n_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), x.n_rows - row);
    const kernels::Rows normed = activations(*normed_, n, config_.hidden);
    ops_.rms_norm(x.slice(row, n), weights.input_norm, config_.rms_eps, normed);
    if (kv) {
      const kernels::Rows projected = activations(*wide_, n, 2 * heads.kv_dim());
      ops_.linear(normed, weights.kv, weights.kv_bias, projected, false);
      ops_.store_kv(projected, heads, weights.k_norm, angles.from(row), kv.from(row));
    }
    if (q) {
      const kernels::Rows queries = q.slice(row, n);
      ops_.linear(normed, weights.q, weights.q_bias, queries, false);
      ops_.rope(queries, heads, weights.q_norm, angles.from(row));
    }
  }
}

void DecoderLayer::finish(const LayerWeights& weights, kernels::ConstRows attention, kernels::Rows x) {
  for (int64_t row = 0; row < x.n_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), x.n_rows - row);
    const kernels::Rows rows = x.slice(row, n);
    const kernels::Rows normed = activations(*normed_, n, config_.hidden);
    const kernels::Rows gate_up = activations(*wide_, n, 2 * config_.ffn);
    const kernels::Rows gated = activations(*gated_, n, config_.ffn);
    if (attention) ops_.linear(attention.slice(row, n), weights.o, weights.o_bias, rows, true);
    ops_.rms_norm(rows, weights.post_norm, config_.rms_eps, normed);
    ops_.linear(normed, weights.gate_up, weights.gate_up_bias, gate_up, false);
    ops_.swiglu(gate_up, gated);
    ops_.linear(gated, weights.down, weights.down_bias, rows, true);
  }
}

}  // namespace winnow::model
