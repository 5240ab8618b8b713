#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace winnow::model {

namespace {

using Type = RopeConfig::Type;

// theta^(2i / dim) for the first n pairs, every step rounded to float32 as PyTorch does on the way; the power is the
// correctly rounded one.
std::vector<float> wavelengths(double theta, int64_t dim, int64_t n_pairs) {
  std::vector<float> powers;
  for (int64_t i = 0; i < n_pairs; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    powers.push_back(static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
  return powers;
}

// Llama 3: wavelengths beyond the original context are stretched by `factor`, short ones stay, those between are
// interpolated.
float scale_llama3(float frequency, const RopeConfig& rope) {
  const auto factor = static_cast<float>(rope.factor);
  const auto context = static_cast<float>(rope.original_max_position);
  const auto long_wave = static_cast<float>(static_cast<double>(rope.original_max_position) / rope.low_freq_factor);
  const auto short_wave = static_cast<float>(static_cast<double>(rope.original_max_position) / rope.high_freq_factor);
  const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / frequency;
  if (wavelength > long_wave) return frequency / factor;
  if (wavelength < short_wave) return frequency;
  const float smooth = (context / wavelength - static_cast<float>(rope.low_freq_factor)) /
                       static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1.0F - smooth) * frequency / factor + smooth * frequency;
}

// YaRN (arXiv 2309.00071, section 3.2): pairs that turn often within the original context keep their frequency, those
// that turn less than once are stretched by `factor`, those between are blended along a ramp.
void scale_yarn(const RopeConfig& rope, int64_t dim, std::vector<float>& frequencies) {
  const auto pair_with = [&](double rotations) {
    return static_cast<double>(dim) *
           std::log(static_cast<double>(rope.original_max_position) / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = pair_with(rope.beta_fast);
  double high = pair_with(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
    const float kept = 1.0F - ramp;
    const float wavelength = frequencies[i];
    const float stretched = 1.0F / (static_cast<float>(rope.factor) * wavelength);
    frequencies[i] = stretched * (1.0F - kept) + 1.0F / wavelength * kept;
  }
}

// NTK: the base grows with the sequence, so that the slowest pair is stretched as the sequence is.
double dynamic_theta(const RopeConfig& rope, int64_t dim, int64_t sequence_length) {
  const auto context = static_cast<double>(rope.original_max_position);
  const double length = std::max(static_cast<double>(sequence_length), context);
  const double grown = rope.factor * length / context - (rope.factor - 1.0);
  return rope.theta * std::pow(grown, static_cast<double>(dim) / static_cast<double>(dim - 2));
}

// Source: Transformers modeling_ministral3.py, get_llama_4_attn_scale.
float query_scale(const RopeConfig& rope, int64_t position) {
  if (rope.query_beta == 0.0) return 1.0F;
  const double stretch = std::floor(static_cast<double>(position) / static_cast<double>(rope.original_max_position));
  return static_cast<float>(1.0 + rope.query_beta * std::log(1.0 + stretch));
}

}  // namespace

std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t sequence_length) {
  if (rope.type == Type::kNone) return {};
  const int64_t dim = rope.rotary_dim == 0 ? head_dim : rope.rotary_dim;
  // Proportional: the frequencies are those of the whole head, and only the first pairs turn.
  const int64_t spread = rope.type == Type::kProportional ? head_dim : dim;
  const double theta = rope.type == Type::kDynamic ? dynamic_theta(rope, dim, sequence_length) : rope.theta;
  std::vector<float> frequencies = wavelengths(theta, spread, dim / 2);
  if (rope.type == Type::kYarn) {
    scale_yarn(rope, dim, frequencies);
    return frequencies;
  }
  const bool is_long = sequence_length > rope.original_max_position;
  const std::vector<double>& stretch = is_long ? rope.long_factor : rope.short_factor;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    float& frequency = frequencies[i];
    if (rope.type == Type::kLongRope) frequency *= static_cast<float>(stretch[i]);
    frequency = 1.0F / frequency;
    if (rope.type == Type::kLinear || rope.type == Type::kProportional) frequency /= static_cast<float>(rope.factor);
    if (rope.type == Type::kLlama3) frequency = scale_llama3(frequency, rope);
  }
  return frequencies;
}

int64_t length_class(const RopeConfig& rope, int64_t sequence_length) {
  if (rope.type == Type::kLongRope) return rope.original_max_position + (sequence_length > rope.original_max_position);
  return rope.type == Type::kDynamic ? std::max(sequence_length, rope.original_max_position) : 0;
}

std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t n_positions, int64_t sequence_length,
                              bool of_queries) {
  const std::vector<float> frequencies = inverse_frequencies(rope, head_dim, sequence_length);
  const int64_t half = head_dim / 2;
  const auto n_turning = static_cast<int64_t>(frequencies.size());
  std::vector<float> table(static_cast<std::size_t>(n_positions * head_dim));
  for (int64_t position = 0; position < n_positions; ++position) {
    float* row = table.data() + position * head_dim;
    const float queries = of_queries ? query_scale(rope, position) : 1.0F;
    const float scaling = static_cast<float>(rope.attention_scaling) * queries;
    for (int64_t i = 0; i < n_turning; ++i) {
      const float angle = frequencies[static_cast<std::size_t>(i)] * static_cast<float>(position);
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * scaling;
      row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * scaling;
    }
    std::fill(row + n_turning, row + half, queries);
  }
  return table;
}

std::vector<int64_t> rotary_order(const RopeConfig& rope, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  const int64_t dim = rope.rotary_dim == 0 || rope.type == Type::kProportional ? head_dim : rope.rotary_dim;
  std::vector<int64_t> order(static_cast<std::size_t>(head_dim));
  for (int64_t i = 0; i < half; ++i) {
    const bool turns = i < dim / 2;
    const int64_t first = !turns ? dim + i - dim / 2 : rope.is_interleaved ? 2 * i : i;
    const int64_t second = !turns ? half + i : rope.is_interleaved ? 2 * i + 1 : dim / 2 + i;
    order[static_cast<std::size_t>(i)] = first;
    order[static_cast<std::size_t>(half + i)] = second;
  }
  return order;
}

}  // namespace winnow::model
