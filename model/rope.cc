#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace winnow::model {

namespace {

// 1 / theta^(2i / head_dim), every step rounded to float32 as PyTorch does on the way; the power is the correctly
// rounded one.
std::vector<float> default_frequencies(double theta, int64_t head_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    frequencies.push_back(1.0F / power);
  }
  return frequencies;
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

}  // namespace

std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> frequencies = default_frequencies(rope.theta, head_dim);
  for (float& frequency : frequencies) {
    if (rope.type == RopeConfig::Type::kLinear) frequency /= static_cast<float>(rope.factor);
    if (rope.type == RopeConfig::Type::kLlama3) frequency = scale_llama3(frequency, rope);
  }
  return frequencies;
}

std::vector<float> rope_table(const RopeConfig& rope, int64_t head_dim, int64_t n_positions) {
  const std::vector<float> frequencies = inverse_frequencies(rope, head_dim);
  const int64_t half = head_dim / 2;
  std::vector<float> table(static_cast<std::size_t>(n_positions * head_dim));
  for (int64_t position = 0; position < n_positions; ++position) {
    float* row = table.data() + position * head_dim;
    for (int64_t i = 0; i < half; ++i) {
      const float angle = frequencies[static_cast<std::size_t>(i)] * static_cast<float>(position);
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return table;
}

}  // namespace winnow::model
