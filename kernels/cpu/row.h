// Vector kernels over one row: vector_kernels.h says what each of them does.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_kernels.h"

namespace winnow::cpu {
namespace {

// Returns 1 / sqrt(mean(x^2) + eps) over n elements.
inline float inverse_rms(const float* x, int64_t n, float eps) {
  VecF sum{};
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) {
    const VecF v = load(x + i);
    sum += v * v;
  }
  if (i < n) {
    const VecF v = load_part(x + i, n - i);
    sum += v * v;
  }
  return 1.0F / __builtin_sqrtf(horizontal_sum(sum) / static_cast<float>(n) + eps);
}

inline float mean_of(const float* x, int64_t n) {
  VecF sum{};
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) sum += load(x + i);
  if (i < n) sum += load_part(x + i, n - i);
  return horizontal_sum(sum) / static_cast<float>(n);
}

// 1 / sqrt(variance(x) + eps) over n elements.
inline float inverse_deviation(const float* x, int64_t n, float mean, float eps) {
  VecF sum{};
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) {
    const VecF v = load(x + i) - mean;
    sum += v * v;
  }
  float squares = horizontal_sum(sum);
  for (; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return 1.0F / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
}

inline void norm_row(const float* x, const float* weight, int64_t n, const kernels::NormShape& shape, float* out) {
  const bool is_rms = shape.kind == kernels::NormKind::kRms;
  const VecF mean = broadcast(is_rms ? 0.0F : mean_of(x, n));
  const VecF inverse = broadcast(is_rms ? inverse_rms(x, n, shape.eps) : inverse_deviation(x, n, mean[0], shape.eps));
  const VecF offset = broadcast(shape.offset);
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) store(out + i, (load(x + i) - mean) * inverse * (load(weight + i) + offset));
  if (i < n) {
    store_part(out + i, (load_part(x + i, n - i) - mean) * inverse * (load_part(weight + i, n - i) + offset), n - i);
  }
}

inline void rotate_row(float* x, const float* angles, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; i += kVec) {
    const int64_t n = half - i < kVec ? half - i : kVec;
    const VecF first = load_part(x + i, n);
    const VecF second = load_part(x + half + i, n);
    const VecF cosine = load_part(angles + i, n);
    const VecF sine = load_part(angles + half + i, n);
    store_part(x + i, first * cosine - second * sine, n);
    store_part(x + half + i, second * cosine + first * sine, n);
  }
}

// factor / (1 + exp(-x)), 0 where that is 0 to float32: the exponential is capped there.
inline VecF sigmoid_times(VecF x, VecF factor) { return factor / (1.0F + exp2(min(x * -kLog2E, broadcast(126.0F)))); }

inline VecF gated(VecF gate, VecF up, kernels::Activation activation) {
  if (activation == kernels::Activation::kSilu) return sigmoid_times(gate, gate) * up;
  if (activation == kernels::Activation::kClampedSwiGlu) {
    const VecF most = broadcast(7.0F);
    const VecF g = min(gate, most);
    return sigmoid_times(g * 1.702F, g) * (max(min(up, most), -most) + 1.0F);
  }
  // 0.5 (1 + tanh(u)) is 1 / (1 + exp(-2u)); 1.5957691 is 2 sqrt(2 / pi).
  const VecF bend = (gate + gate * gate * gate * 0.044715F) * 1.59576912F;
  return sigmoid_times(bend, gate) * up;
}

inline void gate_row(const float* gate, const float* up, int64_t n, kernels::Activation activation, float* out) {
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) store(out + i, gated(load(gate + i), load(up + i), activation));
  if (i < n) store_part(out + i, gated(load_part(gate + i, n - i), load_part(up + i, n - i), activation), n - i);
}

// cap * tanh(x / cap): 1 - 2 / (1 + exp(2z)), whose exponential is capped where tanh is 1 to float32.
inline VecF capped(VecF x, float cap) {
  const VecF power = exp2(min(x * (2.0F * kLog2E / cap), broadcast(126.0F)));
  return (1.0F - 2.0F / (1.0F + power)) * cap;
}

inline void cap_row(float* x, int64_t n, float cap) {
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) store(x + i, capped(load(x + i), cap));
  if (i < n) store_part(x + i, capped(load_part(x + i, n - i), cap), n - i);
}

inline void add_row(const float* values, int64_t n, float scale, float* row) {
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) store(row + i, load(row + i) + load(values + i) * scale);
  if (i < n) store_part(row + i, load_part(row + i, n - i) + load_part(values + i, n - i) * scale, n - i);
}

inline float exp_sum(const float* logits, int64_t n, float max) {
  VecF sum{};
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) sum += exp2((load(logits + i) - max) * kLog2E);
  if (i < n) {
    const VecF e = exp2((load_part(logits + i, n - i) - max) * kLog2E);
    for (int64_t j = 0; j < n - i; ++j) sum[j] += e[j];
  }
  return horizontal_sum(sum);
}

inline float weighted_difference(const float* reference, const float* logits, int64_t n, float max) {
  VecF sum{};
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) {
    const VecF r = load(reference + i);
    sum += exp2((r - max) * kLog2E) * (r - load(logits + i));
  }
  if (i < n) {
    const VecF r = load_part(reference + i, n - i);
    const VecF term = exp2((r - max) * kLog2E) * (r - load_part(logits + i, n - i));
    for (int64_t j = 0; j < n - i; ++j) sum[j] += term[j];
  }
  return horizontal_sum(sum);
}

}  // namespace
}  // namespace winnow::cpu
