#include "pipeline/engine/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

namespace winnow::engine {
namespace {

using Vector = std::vector<double>;

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

// y = W x + b; W (out_features, in_features), b may be empty.
struct Linear {
  Vector weight;
  Vector bias;

  Vector operator()(const Vector& x) const {
    Vector y(weight.size() / x.size());
    for (std::size_t o = 0; o < y.size(); ++o) {
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
      if (!bias.empty()) y[o] += bias[o];
    }
    return y;
  }
};

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

struct Layer {
  Vector input_norm, post_norm, q_norm, k_norm;
  Linear q, k, v, o, gate, up, down;
};

Layer read_layer(const model::ModelConfig& config, const Reader& read, int64_t index) {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const std::string attention = prefix + "self_attn.";
  const int64_t q_dim = config.heads.q_dim();
  const int64_t kv_dim = config.heads.kv_dim();
  Layer layer;
  layer.input_norm = read.vector(prefix + "input_layernorm.weight", config.hidden);
  layer.post_norm = read.vector(prefix + "post_attention_layernorm.weight", config.hidden);
  if (config.qk_norm) {
    layer.q_norm = read.vector(attention + "q_norm.weight", config.heads.head_dim);
    layer.k_norm = read.vector(attention + "k_norm.weight", config.heads.head_dim);
  }
  layer.q = read.linear(attention + "q_proj", q_dim, config.hidden, config.qkv_bias);
  layer.k = read.linear(attention + "k_proj", kv_dim, config.hidden, config.qkv_bias);
  layer.v = read.linear(attention + "v_proj", kv_dim, config.hidden, config.qkv_bias);
  layer.o = read.linear(attention + "o_proj", config.hidden, q_dim, config.o_bias);
  layer.gate = read.linear(prefix + "mlp.gate_proj", config.ffn, config.hidden, config.mlp_bias);
  layer.up = read.linear(prefix + "mlp.up_proj", config.ffn, config.hidden, config.mlp_bias);
  layer.down = read.linear(prefix + "mlp.down_proj", config.hidden, config.ffn, config.mlp_bias);
  return layer;
}

// In place on values[begin, begin + weight.size()).
void rms_norm(Vector& values, std::size_t begin, const Vector& weight, double eps) {
  double squares = 0.0;
  for (std::size_t i = 0; i < weight.size(); ++i) squares += values[begin + i] * values[begin + i];
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(weight.size()) + eps);
  for (std::size_t i = 0; i < weight.size(); ++i) values[begin + i] *= scale * weight[i];
}

Vector rms_normed(Vector values, const Vector& weight, double eps) {
  rms_norm(values, 0, weight, eps);
  return values;
}

// Source: Transformers modeling_rope_utils.py, _compute_llama3_parameters.
double llama3_frequency(const model::RopeConfig& rope, double frequency) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(rope.original_max_position);
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double blend = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - blend) * frequency / rope.factor + blend * frequency;
}

// Rotates one head at values[begin, begin + head_dim): pairs (i, i + head_dim / 2). The angle is a float32 product, as
// the models are served.
void rotate(Vector& values, std::size_t begin, const model::RopeConfig& rope, std::size_t head_dim, int64_t position) {
  const std::size_t half = head_dim / 2;
  for (std::size_t i = 0; i < half; ++i) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (rope.type == model::RopeConfig::Type::kLinear) frequency /= rope.factor;
    if (rope.type == model::RopeConfig::Type::kLlama3) frequency = llama3_frequency(rope, frequency);
    const double angle = static_cast<double>(static_cast<float>(frequency) * static_cast<float>(position));
    const double first = values[begin + i];
    const double second = values[begin + half + i];
    values[begin + i] = first * std::cos(angle) - second * std::sin(angle);
    values[begin + half + i] = second * std::cos(angle) + first * std::sin(angle);
  }
}

void norm_and_rotate(Vector& heads, const Vector& norm, const model::ModelConfig& config, int64_t position) {
  const auto head_dim = static_cast<std::size_t>(config.heads.head_dim);
  for (std::size_t begin = 0; begin < heads.size(); begin += head_dim) {
    if (!norm.empty()) rms_norm(heads, begin, norm, static_cast<double>(config.rms_eps));
    rotate(heads, begin, config.rope, head_dim, position);
  }
}

// Row t of softmax(q k^T / sqrt(head_dim)) v over the keys that it sees, all heads; the model's own definition, written
// out again: key j iff j <= t and (t - j < W or j < S), where the row obeys the window at all.
Vector attend(const model::ModelConfig& config, const Vector& q, const std::vector<Vector>& k,
              const std::vector<Vector>& v, const kernels::Window& window) {
  const auto head_dim = static_cast<std::size_t>(config.heads.head_dim);
  const auto group = static_cast<std::size_t>(config.heads.n_heads / config.heads.n_kv_heads);
  const auto t = static_cast<int64_t>(k.size()) - 1;
  const bool obeys_window = t >= window.first_row && t < window.end_row;
  Vector out(q.size());
  for (std::size_t head = 0; head * head_dim < q.size(); ++head) {
    const std::size_t kv_begin = head / group * head_dim;
    Vector score(k.size(), -INFINITY);
    for (std::size_t j = 0; j < k.size(); ++j) {
      const auto key = static_cast<int64_t>(j);
      if (obeys_window && t - key >= window.keys && key >= window.sinks) continue;
      double dot = 0.0;
      for (std::size_t i = 0; i < head_dim; ++i) dot += q[head * head_dim + i] * k[j][kv_begin + i];
      score[j] = dot / std::sqrt(static_cast<double>(head_dim));
    }
    const double largest = *std::max_element(score.begin(), score.end());
    double sum = 0.0;
    for (double& s : score) sum += s = std::exp(s - largest);
    for (std::size_t j = 0; j < k.size(); ++j) {
      for (std::size_t i = 0; i < head_dim; ++i) out[head * head_dim + i] += score[j] / sum * v[j][kv_begin + i];
    }
  }
  return out;
}

void add(Vector& to, const Vector& from) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

// One decoder layer on all rows, in place.
void run_layer(const model::ModelConfig& config, const Layer& layer, std::vector<Vector>& rows,
               const kernels::Window& window) {
  const auto eps = static_cast<double>(config.rms_eps);
  std::vector<Vector> keys;
  std::vector<Vector> values;
  for (std::size_t t = 0; t < rows.size(); ++t) {
    const auto position = static_cast<int64_t>(t);
    const Vector normed = rms_normed(rows[t], layer.input_norm, eps);
    Vector q = layer.q(normed);
    keys.push_back(layer.k(normed));
    values.push_back(layer.v(normed));
    norm_and_rotate(q, layer.q_norm, config, position);
    norm_and_rotate(keys.back(), layer.k_norm, config, position);
    add(rows[t], layer.o(attend(config, q, keys, values, window)));

    const Vector mlp_input = rms_normed(rows[t], layer.post_norm, eps);
    Vector gate = layer.gate(mlp_input);
    const Vector up = layer.up(mlp_input);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
    add(rows[t], layer.down(gate));
  }
}

// -log p(target) of one row of logits, and whether the target is their first maximum.
std::pair<double, bool> token_nll(const Vector& logits, int32_t target) {
  const auto largest = std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const double logit : logits) sum += std::exp(logit - *largest);
  return {std::log(sum) + *largest - logits[static_cast<std::size_t>(target)], largest - logits.begin() == target};
}

}  // namespace

Score reference_score(const model::ModelConfig& config, const model::Checkpoint& checkpoint,
                      std::span<const int32_t> tokens, int64_t answer_start, const LayerWindows& windows) {
  const Reader read{checkpoint};
  const Vector embedding = to_double(checkpoint.get("model.embed_tokens.weight", {config.vocab, config.hidden}));
  std::vector<Vector> rows;
  for (const int32_t token : tokens.first(tokens.size() - 1)) {
    const auto begin = embedding.begin() + token * config.hidden;
    rows.emplace_back(begin, begin + config.hidden);
  }
  for (int64_t l = 0; l < config.n_layers; ++l) {
    run_layer(config, read_layer(config, read, l), rows, windows[static_cast<std::size_t>(l)].window);
  }

  const Vector final_norm = read.vector("model.norm.weight", config.hidden);
  Linear head{embedding, {}};
  if (!config.tied_embeddings) head = read.linear("lm_head", config.vocab, config.hidden, false);
  Score score;
  double hits = 0.0;
  for (auto t = static_cast<std::size_t>(answer_start); t < tokens.size(); ++t) {
    const Vector logits = head(rms_normed(rows[t - 1], final_norm, static_cast<double>(config.rms_eps)));
    const auto [nll, is_argmax] = token_nll(logits, tokens[t]);
    score.nll_nats += nll;
    hits += is_argmax ? 1.0 : 0.0;
    score.token_nll_nats.push_back(static_cast<float>(nll));
  }
  const auto n_answer = static_cast<double>(tokens.size()) - static_cast<double>(answer_start);
  score.nll_nats /= n_answer;
  score.token_accuracy = hits / n_answer;
  score.exact_match = score.token_accuracy == 1.0;
  return score;
}

}  // namespace winnow::engine
