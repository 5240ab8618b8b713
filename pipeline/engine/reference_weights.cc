#include "pipeline/engine/reference_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "model/families.h"

namespace winnow::engine {
namespace {

using Vector = ReferenceVector;
using Linear = ReferenceLinear;
using Mlp = ReferenceMlp;
using Layer = ReferenceLayer;

double half_to_double(uint16_t bits) {
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 10) & 0x1F;
  const int fraction = bits & 0x3FF;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

double bfloat16_to_double(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value = 0.F;
  std::memcpy(&value, &wide, sizeof(value));
  return static_cast<double>(value);
}

Vector to_double(const kernels::HostTensor& tensor) {
  Vector values(static_cast<std::size_t>(tensor.count()));
  if (tensor.values) {
    std::vector<float> computed(values.size());
    tensor.values->read(0, tensor.count(), computed.data());
    std::copy(computed.begin(), computed.end(), values.begin());
    return values;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype == kernels::DType::kF32) {
      float value = 0.F;
      std::memcpy(&value, tensor.data + 4 * i, sizeof(value));
      values[i] = static_cast<double>(value);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, tensor.data + 2 * i, sizeof(bits));
      values[i] = tensor.dtype == kernels::DType::kF16 ? half_to_double(bits) : bfloat16_to_double(bits);
    }
  }
  return values;
}

struct Reader {
  const model::Checkpoint& checkpoint;

  Vector vector(const std::string& name, int64_t n) const { return to_double(checkpoint.get(name, {n})); }
  Linear linear(const std::string& name, int64_t out_features, int64_t in_features, bool has_bias) const {
    Linear linear;
    linear.weight = to_double(checkpoint.get(name + ".weight", {out_features, in_features}));
    if (has_bias) linear.bias = vector(name + ".bias", out_features);
    return linear;
  }
};

// Rows [first, first + n) of W.
Linear rows_of(const Linear& whole, int64_t first, int64_t n, int64_t in_features) {
  const auto begin = whole.weight.begin() + first * in_features;
  return {{begin, begin + n * in_features}, {}};
}

void read_projections(const model::ModelConfig& config, const Reader& read, const std::string& prefix, Layer& layer) {
  const model::LayerNames& names = config.family->names;
  const int64_t q_dim = config.heads.q_dim();
  const int64_t kv_dim = config.heads.kv_dim();
  if (names.qkv.empty()) {
    layer.q = read.linear(prefix + "self_attn.q_proj", q_dim, config.hidden, config.qkv_bias);
    layer.k = read.linear(prefix + "self_attn.k_proj", kv_dim, config.hidden, config.qkv_bias);
    layer.v = read.linear(prefix + "self_attn.v_proj", kv_dim, config.hidden, config.qkv_bias);
  } else {
    const Linear all = read.linear(prefix + std::string(names.qkv), q_dim + 2 * kv_dim, config.hidden, false);
    layer.q = rows_of(all, 0, q_dim, config.hidden);
    layer.k = rows_of(all, q_dim, kv_dim, config.hidden);
    layer.v = rows_of(all, q_dim + kv_dim, kv_dim, config.hidden);
  }
}

void read_mlp(const model::ModelConfig& config, const Reader& read, const std::string& prefix, Mlp& mlp) {
  const model::LayerNames& names = config.family->names;
  if (names.gate_up.empty()) {
    mlp.gate = read.linear(prefix + "mlp.gate_proj", config.ffn, config.hidden, config.mlp_bias);
    mlp.up = read.linear(prefix + "mlp.up_proj", config.ffn, config.hidden, config.mlp_bias);
  } else {
    const Linear both = read.linear(prefix + std::string(names.gate_up), 2 * config.ffn, config.hidden, false);
    mlp.gate = rows_of(both, 0, config.ffn, config.hidden);
    mlp.up = rows_of(both, config.ffn, config.ffn, config.hidden);
  }
  mlp.down = read.linear(prefix + "mlp.down_proj", config.hidden, config.ffn, config.mlp_bias);
}

// Experts in tensors that have all of them, gate and up in turn.
void read_fused_experts(const model::ModelConfig& config, const Reader& read, const std::string& prefix, Layer& layer) {
  const model::ExpertsFamily& names = config.family->experts;
  const int64_t n_experts = config.experts.router.n_experts;
  // Returns rows `first`, `first` + `step` and so on of expert e.
  const auto rows_of_expert = [&](std::string_view name, int64_t e, int64_t out, int64_t in, int64_t first,
                                  int64_t step) {
    const std::string whole = prefix + std::string(name);
    // Quantised weights have the out features first.
    const bool is_transposed = config.quantization.weights_of(whole) == nullptr;
    const std::vector<int64_t> as_stored = {n_experts, in, out};
    const std::vector<int64_t> as_computed = {n_experts, out, in};
    const Vector all = read_reference(read.checkpoint, whole, is_transposed ? as_stored : as_computed);
    const Vector biases =
        names.has_biases ? read_reference(read.checkpoint, whole + "_bias", {n_experts, out}) : Vector{};
    Linear linear;
    for (int64_t row = first; row < out; row += step) {
      for (int64_t col = 0; col < in; ++col) {
        const int64_t at = is_transposed ? (e * in + col) * out + row : (e * out + row) * in + col;
        linear.weight.push_back(all[static_cast<std::size_t>(at)]);
      }
      if (!biases.empty()) linear.bias.push_back(biases[static_cast<std::size_t>(e * out + row)]);
    }
    return linear;
  };
  const int64_t ffn = config.experts.ffn;
  for (int64_t e = 0; e < n_experts; ++e) {
    layer.experts.push_back({rows_of_expert(names.fused_gate_up, e, 2 * ffn, config.hidden, 0, 2),
                             rows_of_expert(names.fused_gate_up, e, 2 * ffn, config.hidden, 1, 2),
                             rows_of_expert(names.fused_down, e, config.hidden, ffn, 0, 1)});
  }
}

void read_experts(const model::ModelConfig& config, const Reader& read, const std::string& prefix, Layer& layer) {
  const model::ExpertsFamily& names = config.family->experts;
  const int64_t n_experts = config.experts.router.n_experts;
  const auto mlp = [&](const std::string& name, int64_t ffn) {
    const auto linear = [&](std::string_view part, int64_t out, int64_t in) {
      return read.linear(prefix + name + "." + std::string(part), out, in, false);
    };
    return Mlp{linear(names.gate, ffn, config.hidden), linear(names.up, ffn, config.hidden),
               linear(names.down, config.hidden, ffn)};
  };
  layer.router = read.linear(prefix + std::string(names.router), n_experts, config.hidden, names.has_biases);
  if (!names.correction.empty()) {
    const std::vector<int64_t> as_row = {1, n_experts};
    const std::vector<int64_t> as_vector = {n_experts};
    layer.correction = to_double(
        read.checkpoint.get(prefix + std::string(names.correction), names.correction_is_row ? as_row : as_vector));
  }
  if (!names.fused_gate_up.empty()) {
    read_fused_experts(config, read, prefix, layer);
    return;
  }
  for (int64_t e = 0; e < n_experts; ++e) {
    layer.experts.push_back(mlp(std::string(names.each) + "." + std::to_string(e), config.experts.ffn));
  }
  if (config.experts.shared_ffn > 0) layer.mlp = mlp(std::string(names.shared), config.experts.shared_ffn);
}

}  // namespace

ReferenceVector ReferenceLinear::operator()(const ReferenceVector& x) const {
  ReferenceVector y(weight.size() / x.size());
  for (std::size_t o = 0; o < y.size(); ++o) {
    for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
    if (!bias.empty()) y[o] += bias[o];
  }
  return y;
}

ReferenceVector read_reference(const model::Checkpoint& checkpoint, const std::string& name,
                               const std::vector<int64_t>& shape) {
  return to_double(checkpoint.get(name, shape));
}

ReferenceLayer read_reference_layer(const model::ModelConfig& config, const model::Checkpoint& checkpoint,
                                    int64_t index) {
  const Reader read{checkpoint};
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const model::Family& family = *config.family;
  const auto norm = [&](std::string_view name, int64_t n) {
    return name.empty() ? Vector{} : read.vector(prefix + std::string(name) + ".weight", n);
  };
  Layer layer;
  layer.attention_norm = norm(family.names.attention_norm, config.hidden);
  layer.attention_output_norm = norm(family.names.attention_output_norm, config.hidden);
  layer.mlp_norm = norm(family.names.mlp_norm, config.hidden);
  layer.mlp_output_norm = norm(family.names.mlp_output_norm, config.hidden);
  if (config.has_qk_norm) {
    const bool per_head = family.qk_norm == model::QkNorm::kPerHead;
    layer.q_norm = norm(family.names.q_norm, per_head ? config.heads.head_dim : config.heads.q_dim());
    layer.k_norm = norm(family.names.k_norm, per_head ? config.heads.head_dim : config.heads.kv_dim());
  }
  if (!family.names.sink_logits.empty()) {
    layer.sink_logits = read.vector(prefix + std::string(family.names.sink_logits), config.heads.n_heads);
  }
  read_projections(config, read, prefix, layer);
  layer.o = read.linear(prefix + "self_attn.o_proj", config.hidden, config.heads.q_dim(), config.o_bias);
  if (config.experts.of_layer(index)) {
    read_experts(config, read, prefix, layer);
  } else {
    read_mlp(config, read, prefix, layer.mlp);
  }
  return layer;
}

}  // namespace winnow::engine
