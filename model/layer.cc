#include "model/layer.h"

#include <algorithm>

#include "model/families.h"

namespace winnow::model {

namespace {

// The widest MLP of a layer, experts apart.
int64_t mlp_cols(const ModelConfig& config) { return std::max(config.ffn, config.experts.shared_ffn); }

int64_t wide_cols(const ModelConfig& config) { return std::max(2 * config.heads.kv_dim(), 2 * mlp_cols(config)); }

// Of what is normed before it is added, where there is such a norm, and of what experts make.
int64_t delta_cols(const ModelConfig& config) {
  const LayerNames& names = config.family->names;
  const bool has_norm = !names.attention_output_norm.empty() || !names.mlp_output_norm.empty();
  return has_norm || config.experts ? config.hidden : 0;
}

int64_t chunk_bytes(const kernels::Ops& ops, int64_t cols) {
  return ops.device().chunk_rows() * cols * kernels::size_bytes(ops.device().activation_dtype());
}

}  // namespace

DecoderLayer::DecoderLayer(kernels::Ops& ops, const ModelConfig& config)
    : ops_(ops),
      config_(config),
      normed_(ops.device().allocate(chunk_bytes(ops, config.hidden), "normed rows")),
      wide_(ops.device().allocate(chunk_bytes(ops, wide_cols(config)), "projected rows")),
      gated_(ops.device().allocate(chunk_bytes(ops, mlp_cols(config)), "gated rows")),
      delta_(ops.device().allocate(chunk_bytes(ops, delta_cols(config)), "rows before they are added")) {}

int64_t DecoderLayer::workspace_bytes(const kernels::Ops& ops, const ModelConfig& config) {
  const kernels::Device& device = ops.device();
  const int64_t experts = config.experts ? device.experts_bytes(device.chunk_rows(), config.hidden, config.experts.ffn,
                                                                config.experts.router)
                                         : 0;
  return chunk_bytes(ops, config.hidden + wide_cols(config) + mlp_cols(config) + delta_cols(config)) + experts;
}

kernels::Rows DecoderLayer::activations(kernels::Buffer& memory, int64_t n, int64_t cols) const {
  return memory.rows(ops_.device().activation_dtype(), cols).slice(0, n);
}

void DecoderLayer::attention_input(const LayerWeights& weights, kernels::ConstRows x, const LayerAngles& angles,
                                   kernels::KvSpan kv, kernels::Rows q) {
  const kernels::HeadShape& heads = config_.heads;
  for (int64_t row = 0; row < x.n_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), x.n_rows - row);
    const kernels::Rows normed = activations(*normed_, n, config_.hidden);
    ops_.norm(x.slice(row, n), weights.attention_norm, normed);
    if (kv) {
      const kernels::Rows projected = activations(*wide_, n, 2 * heads.kv_dim());
      ops_.linear(normed, weights.kv, weights.kv_bias, projected, false);
      ops_.store_kv(projected, heads, weights.k_norm, angles.keys.from(row), kv.from(row));
    }
    if (q) {
      const kernels::Rows queries = q.slice(row, n);
      ops_.linear(normed, weights.q, weights.q_bias, queries, false);
      ops_.rope(queries, heads, weights.q_norm, angles.queries.from(row));
    }
  }
}

void DecoderLayer::add_product(kernels::ConstRows input, const kernels::Matrix& weight, const kernels::Matrix& bias,
                               const kernels::Norm& output_norm, kernels::Rows rows) {
  if (!output_norm) {
    ops_.linear(input, weight, bias, rows, true, config_.residual_scale);
    return;
  }
  const kernels::Rows delta = activations(*delta_, rows.n_rows, config_.hidden);
  ops_.linear(input, weight, bias, delta, false);
  ops_.add(delta, output_norm, config_.residual_scale, rows);
}

void DecoderLayer::run_mlp(const LayerWeights& weights, kernels::ConstRows normed, kernels::Rows rows) {
  const kernels::Activation activation = config_.family->activation;
  if (weights.router.weight) {
    const kernels::Rows delta = activations(*delta_, rows.n_rows, config_.hidden);
    ops_.experts(normed, weights.router, weights.experts, activation, delta);
    ops_.add(delta, weights.mlp_output_norm, config_.residual_scale, rows);
  }
  if (!weights.gate_up) return;
  const int64_t ffn = weights.down.cols;
  const kernels::Rows gate_up = activations(*wide_, rows.n_rows, 2 * ffn);
  const kernels::Rows gated = activations(*gated_, rows.n_rows, ffn);
  ops_.linear(normed, weights.gate_up, weights.gate_up_bias, gate_up, false);
  ops_.gate(gate_up, activation, gated);
  add_product(gated, weights.down, weights.down_bias, weights.mlp_output_norm, rows);
}

void DecoderLayer::finish(const LayerWeights& weights, kernels::ConstRows attention, kernels::Rows x) {
  const bool is_parallel = config_.family->parallel;
  for (int64_t row = 0; row < x.n_rows; row += ops_.device().chunk_rows()) {
    const int64_t n = std::min(ops_.device().chunk_rows(), x.n_rows - row);
    const kernels::Rows rows = x.slice(row, n);
    const kernels::Rows normed = activations(*normed_, n, config_.hidden);
    const auto attend = [&] {
      if (!attention) return;
      add_product(attention.slice(row, n), weights.o, weights.o_bias, weights.attention_output_norm, rows);
    };
    if (!is_parallel) attend();
    ops_.norm(rows, is_parallel ? weights.attention_norm : weights.mlp_norm, normed);
    if (is_parallel) attend();
    run_mlp(weights, normed, rows);
  }
}

}  // namespace winnow::model
