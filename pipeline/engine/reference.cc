#include "pipeline/engine/reference.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

#include "model/families.h"
#include "pipeline/engine/reference_weights.h"

namespace winnow::engine {
namespace {

using Vector = ReferenceVector;
using Linear = ReferenceLinear;
using Mlp = ReferenceMlp;
using Layer = ReferenceLayer;

// In place on values[begin, begin + weight.size()); an empty weight leaves them.
void norm_in_place(Vector& values, std::size_t begin, const Vector& weight, const kernels::NormShape& shape) {
  if (weight.empty()) return;
  const auto n = static_cast<double>(weight.size());
  double mean = 0.0;
  if (shape.kind == kernels::NormKind::kLayer) {
    for (std::size_t i = 0; i < weight.size(); ++i) mean += values[begin + i] / n;
  }
  double squares = 0.0;
  for (std::size_t i = 0; i < weight.size(); ++i) squares += (values[begin + i] - mean) * (values[begin + i] - mean);
  const double scale = 1.0 / std::sqrt(squares / n + static_cast<double>(shape.eps));
  for (std::size_t i = 0; i < weight.size(); ++i) {
    values[begin + i] = (values[begin + i] - mean) * scale * (static_cast<double>(shape.offset) + weight[i]);
  }
}

Vector normed(Vector values, const Vector& weight, const kernels::NormShape& shape) {
  norm_in_place(values, 0, weight, shape);
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

// Source: the same, _compute_yarn_parameters: how much of pair i keeps its frequency, 0 to 1.
double yarn_share(const model::RopeConfig& rope, double dim, double i) {
  const auto boundary = [&](double turns) {
    const double periods = static_cast<double>(rope.original_max_position) / (2.0 * std::numbers::pi * turns);
    return dim / 2.0 * std::log(periods) / std::log(rope.theta);
  };
  double first = boundary(rope.beta_fast);
  double last = boundary(rope.beta_slow);
  if (rope.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, dim - 1.0);
  if (first == last) last += 0.001;
  return 1.0 - std::min(std::max((i - first) / (last - first), 0.0), 1.0);
}

// Radians per position of pair i of the `dim` dimensions that turn, in a sequence of `length` tokens.
double frequency_of(const model::RopeConfig& rope, double head_dim, double dim, std::size_t pair, double length) {
  using Type = model::RopeConfig::Type;
  const auto i = static_cast<double>(pair);
  double theta = rope.theta;
  if (rope.type == Type::kDynamic) {
    const auto context = static_cast<double>(rope.original_max_position);
    const double stretch = rope.factor * std::max(length, context) / context - rope.factor + 1.0;
    theta *= std::pow(stretch, dim / (dim - 2.0));
  }
  const double frequency = std::pow(theta, -2.0 * i / (rope.type == Type::kProportional ? head_dim : dim));
  switch (rope.type) {
    case Type::kLinear:
    case Type::kProportional:
      return frequency / rope.factor;
    case Type::kLlama3:
      return llama3_frequency(rope, frequency);
    case Type::kYarn: {
      const double kept = yarn_share(rope, dim, i);
      return frequency * kept + frequency / rope.factor * (1.0 - kept);
    }
    case Type::kLongRope: {
      const bool is_long = length > static_cast<double>(rope.original_max_position);
      return frequency / (is_long ? rope.long_factor : rope.short_factor)[pair];
    }
    default:
      return frequency;
  }
}

// Rotates one head at values[begin, begin + head_dim). The angle is a float32 product, as the models are served.
void rotate(Vector& values, std::size_t begin, const model::RopeConfig& rope, std::size_t head_dim, int64_t position,
            std::size_t length) {
  if (rope.type == model::RopeConfig::Type::kNone) return;
  const std::size_t dim = rope.rotary_dim == 0 ? head_dim : static_cast<std::size_t>(rope.rotary_dim);
  const bool is_share = rope.type == model::RopeConfig::Type::kProportional;
  for (std::size_t i = 0; i < dim / 2; ++i) {
    const double frequency =
        frequency_of(rope, static_cast<double>(head_dim), static_cast<double>(dim), i, static_cast<double>(length));
    const double angle = static_cast<double>(static_cast<float>(frequency) * static_cast<float>(position));
    const std::size_t one = begin + (rope.is_interleaved ? 2 * i : i);
    const std::size_t other = rope.is_interleaved ? one + 1 : one + (is_share ? head_dim : dim) / 2;
    const double first = values[one];
    const double second = values[other];
    values[one] = (first * std::cos(angle) - second * std::sin(angle)) * rope.attention_scaling;
    values[other] = (second * std::cos(angle) + first * std::sin(angle)) * rope.attention_scaling;
  }
}

double capped(double value, double cap) { return cap > 0.0 ? cap * std::tanh(value / cap) : value; }

// Source: Transformers modeling_ministral3.py, get_llama_4_attn_scale.
double query_scale(const model::RopeConfig& rope, int64_t position) {
  if (rope.query_beta == 0.0) return 1.0;
  return 1.0 + rope.query_beta * std::log(1.0 + std::floor(static_cast<double>(position) /
                                                           static_cast<double>(rope.original_max_position)));
}

// In float64 where it follows from head_dim, which float32 would round.
double attention_scale(const model::ModelConfig& config) {
  const double usual = 1.0 / std::sqrt(static_cast<double>(config.heads.head_dim));
  const bool is_usual = config.heads.scale == static_cast<float>(usual);
  return is_usual ? usual : static_cast<double>(config.heads.scale);
}

// Norms and rotation of the heads of one row, in the order of the family.
void norm_and_rotate(Vector& heads, const Vector& weight, const model::ModelConfig& config,
                     const model::RopeConfig& rope, int64_t position, std::size_t length) {
  const auto head_dim = static_cast<std::size_t>(config.heads.head_dim);
  const bool norms_first = !config.family->qk_norm_after_rope;
  for (const bool is_norm : {norms_first, !norms_first}) {
    for (std::size_t begin = 0; begin < heads.size(); begin += head_dim) {
      if (!is_norm) rotate(heads, begin, rope, head_dim, position, length);
      // A weight as long as all heads norms them together, once.
      if (is_norm && begin % std::max<std::size_t>(weight.size(), 1) == 0) {
        norm_in_place(heads, begin, weight, config.norm);
      }
    }
  }
}

// Row t of softmax(scale * q k^T) v over the keys that it sees, all heads; the model's own definition, written
// out again: key j iff j <= t and (t - j < W or j < S), where the row obeys the window at all. A sink logit is one
// more score, whose value is 0.
Vector attend(const model::ModelConfig& config, const Layer& layer, const Vector& q, const std::vector<Vector>& k,
              const std::vector<Vector>& v, const LayerWindow& setting) {
  const kernels::Window& window = setting.window;
  const auto head_dim = static_cast<std::size_t>(config.heads.head_dim);
  const auto cap = static_cast<double>(config.heads.softcap);
  const double scale = attention_scale(config);
  const auto group = static_cast<std::size_t>(config.heads.n_heads / config.heads.n_kv_heads);
  const auto t = static_cast<int64_t>(k.size()) - 1;
  const bool obeys_window = t >= window.first_row && t < window.end_row;
  Vector out(q.size());
  for (std::size_t head = 0; head * head_dim < q.size(); ++head) {
    const std::size_t kv_begin = head / group * head_dim;
    const bool has_window = obeys_window && (setting.windowed_heads.empty() || setting.windowed_heads[head / group]);
    Vector score(k.size(), -INFINITY);
    for (std::size_t j = 0; j < k.size(); ++j) {
      const auto key = static_cast<int64_t>(j);
      if (has_window && t - key >= window.keys && key >= window.sinks) continue;
      double dot = 0.0;
      for (std::size_t i = 0; i < head_dim; ++i) dot += q[head * head_dim + i] * k[j][kv_begin + i];
      score[j] = capped(dot * scale, cap);
    }
    const double sink = layer.sink_logits.empty() ? -INFINITY : layer.sink_logits[head];
    const double largest = std::max(sink, *std::max_element(score.begin(), score.end()));
    double sum = std::exp(sink - largest);
    for (double& s : score) sum += s = std::exp(s - largest);
    for (std::size_t j = 0; j < k.size(); ++j) {
      for (std::size_t i = 0; i < head_dim; ++i) out[head * head_dim + i] += score[j] / sum * v[j][kv_begin + i];
    }
  }
  return out;
}

void add(Vector& to, const Vector& from, double scale) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += scale * from[i];
}

// What an activation makes of one gate and up.
double gated(kernels::Activation activation, double x, double up) {
  if (activation == kernels::Activation::kSilu) return up * x / (1.0 + std::exp(-x));
  if (activation == kernels::Activation::kClampedSwiGlu) {
    const double gate = std::min(x, 7.0);
    return gate / (1.0 + std::exp(-1.702 * gate)) * (std::clamp(up, -7.0, 7.0) + 1.0);
  }
  return up * 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

// down(act(gate, up)) of one row.
Vector run_mlp(const model::ModelConfig& config, const Mlp& mlp, const Vector& input) {
  Vector gate = mlp.gate(input);
  const Vector up = mlp.up(input);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gated(config.family->activation, gate[i], up[i]);
  return mlp.down(gate);
}

// Numbers of the largest `count` values, the largest first, ties to the lower number.
std::vector<std::size_t> best_of(const Vector& values, int64_t count) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  order.resize(static_cast<std::size_t>(count));
  return order;
}

// The weight of every expert for one row, 0 where it is not chosen.
// Source: Transformers modeling_glm4_moe.py, Glm4MoeTopkRouter, of which the others are special cases.
Vector expert_weights(const kernels::RouterShape& router, const Layer& layer, const Vector& input) {
  Vector scores = layer.router(input);
  const double largest = *std::ranges::max_element(scores);
  double sum = 0.0;
  for (double& score : scores) {
    if (router.scores == kernels::RouterScores::kSigmoid) {
      score = 1.0 / (1.0 + std::exp(-score));
    } else {
      sum += score = std::exp(score - largest);
    }
  }
  for (double& score : scores) score /= router.scores == kernels::RouterScores::kSoftmax ? sum : 1.0;
  Vector choice = scores;
  if (!layer.correction.empty()) add(choice, layer.correction, 1.0);
  const std::size_t group_size = scores.size() / static_cast<std::size_t>(router.n_groups);
  Vector groups;
  for (auto begin = choice.begin(); begin != choice.end(); begin += static_cast<int64_t>(group_size)) {
    const Vector group(begin, begin + static_cast<int64_t>(group_size));
    groups.push_back(0.0);
    for (const std::size_t e : best_of(group, std::min<int64_t>(2, static_cast<int64_t>(group_size)))) {
      groups.back() += group[e];
    }
  }
  const std::vector<std::size_t> best_groups = best_of(groups, router.top_groups);
  for (std::size_t e = 0; e < choice.size(); ++e) {
    if (std::ranges::find(best_groups, e / group_size) == best_groups.end()) choice[e] = -INFINITY;
  }
  const std::vector<std::size_t> chosen = best_of(choice, router.top_k);
  double of_chosen = 0.0;
  for (const std::size_t e : chosen) of_chosen += scores[e];
  const bool divides = router.normalised || router.scores == kernels::RouterScores::kSoftmaxOfChosen;
  Vector weights(scores.size());
  for (const std::size_t e : chosen) {
    weights[e] = scores[e] / (divides ? of_chosen : 1.0) * static_cast<double>(router.scale);
  }
  return weights;
}

// The MLP of one row, or what its experts make of it.
Vector run_layer_mlp(const model::ModelConfig& config, const Layer& layer, const Vector& input) {
  Vector sum = layer.mlp.down.weight.empty() ? Vector(input.size()) : run_mlp(config, layer.mlp, input);
  if (layer.experts.empty()) return sum;
  const Vector weights = expert_weights(config.experts.router, layer, input);
  for (std::size_t e = 0; e < weights.size(); ++e) {
    if (weights[e] != 0.0) add(sum, run_mlp(config, layer.experts[e], input), weights[e]);
  }
  return sum;
}

// The nearest number with so many binary digits, ties to even; its last digit is worth 2^least_exponent at least.
double with_digits(double x, int digits, int least_exponent) {
  int exponent = 0;
  std::frexp(x, &exponent);
  const double step = std::ldexp(1.0, std::max(exponent - digits, least_exponent));
  return std::nearbyint(x / step) * step;
}

// What a cache of that type gives back of one row's heads; scale: of fp8. The types are those of kernels/kv_rounding.h,
// written out again.
Vector kept(const Vector& heads, KvType type, double scale, int64_t head_dim) {
  constexpr int kAnyExponent = -1000;
  Vector rounded = heads;
  for (auto head = rounded.begin(); head != rounded.end(); head += head_dim) {
    const auto [least, largest] = std::minmax_element(head, head + head_dim);
    const double of_int8 = std::max(std::max(std::abs(*least), std::abs(*largest)) / 127.0, 1e-6);
    const double zero = with_digits(*least, 8, kAnyExponent);
    const double of_int4 = with_digits((*largest - *least) / 15.0, 8, kAnyExponent);
    std::for_each(head, head + head_dim, [&](double& x) {
      if (type == KvType::kFp8) x = std::clamp(with_digits(x / scale, 4, -9), -448.0, 448.0) * scale;
      if (type == KvType::kInt8) x = std::nearbyint(x / of_int8) * of_int8;
      if (type == KvType::kInt4) x = std::clamp(std::nearbyint((x - zero) / of_int4), 0.0, 15.0) * of_int4 + zero;
    });
  }
  return rounded;
}

// One decoder layer on all rows, in place.
void run_layer(const model::ModelConfig& config, const Layer& layer, const model::RopeConfig& rope,
               std::vector<Vector>& rows, const LayerWindow& setting, const kernels::KvRounding& scales) {
  const auto residual_scale = static_cast<double>(config.residual_scale);
  std::vector<Vector> keys;
  std::vector<Vector> values;
  std::vector<Vector> kept_keys;
  std::vector<Vector> kept_values;
  for (std::size_t t = 0; t < rows.size(); ++t) {
    const auto position = static_cast<int64_t>(t);
    const Vector input = normed(rows[t], layer.attention_norm, config.norm);
    Vector q = layer.q(input);
    keys.push_back(layer.k(input));
    values.push_back(layer.v(input));
    norm_and_rotate(q, layer.q_norm, config, rope, position, rows.size());
    norm_and_rotate(keys.back(), layer.k_norm, config, rope, position, rows.size());
    const double q_scale = query_scale(rope, position);
    for (double& value : q) value *= q_scale;
    kept_keys.push_back(kept(keys.back(), setting.kv, scales.key_scale, config.heads.head_dim));
    kept_values.push_back(kept(values.back(), setting.kv, scales.value_scale, config.heads.head_dim));
    const bool reads_kept = position >= setting.kv_first_row;
    const Vector attended =
        layer.o(attend(config, layer, q, reads_kept ? kept_keys : keys, reads_kept ? kept_values : values, setting));
    Vector mlp_input = rows[t];
    add(rows[t], normed(attended, layer.attention_output_norm, config.norm), residual_scale);
    if (!config.family->parallel) mlp_input = rows[t];
    const Vector& mlp_norm = config.family->parallel ? layer.attention_norm : layer.mlp_norm;
    const Vector mlp = run_layer_mlp(config, layer, normed(mlp_input, mlp_norm, config.norm));
    add(rows[t], normed(mlp, layer.mlp_output_norm, config.norm), residual_scale);
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
  const Vector embedding = read_reference(checkpoint, "model.embed_tokens.weight", {config.vocab, config.hidden});
  const auto embedding_scale = static_cast<double>(config.embedding_scale);
  std::vector<Vector> rows;
  for (const int32_t token : tokens.first(tokens.size() - 1)) {
    const auto begin = embedding.begin() + token * config.hidden;
    rows.emplace_back(begin, begin + config.hidden);
    for (double& value : rows.back()) value *= embedding_scale;
  }
  for (int64_t l = 0; l < config.n_layers; ++l) {
    const LayerWindow& setting = windows[static_cast<std::size_t>(l)];
    const bool is_own = setting.rope == LayerWindow::kOwnRope;
    const model::RopeConfig& rope = is_own ? config.rope_of(l) : config.ropes[static_cast<std::size_t>(setting.rope)];
    run_layer(config, read_reference_layer(config, checkpoint, l), rope, rows, setting,
              config.kv_rounding(setting.kv, l));
  }

  const Vector final_norm = read_reference(checkpoint, "model.norm.weight", {config.hidden});
  Linear head{embedding, {}};
  if (!config.tied_embeddings)
    head.weight = read_reference(checkpoint, "lm_head.weight", {config.vocab, config.hidden});
  const auto logit_scale = static_cast<double>(config.logits.scale);
  const auto logit_cap = static_cast<double>(config.logits.softcap);
  Score score;
  double hits = 0.0;
  for (auto t = static_cast<std::size_t>(answer_start); t < tokens.size(); ++t) {
    Vector logits = head(normed(rows[t - 1], final_norm, config.norm));
    for (double& logit : logits) logit = capped(logit * logit_scale, logit_cap);
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
