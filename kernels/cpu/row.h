// Operations on one row, shared by the kernels. Each treats its row alone and in a fixed order.
#pragma once

#include <cmath>

#include "kernels/cpu/simd.h"

namespace winnow::cpu {

// 1 / sqrt(mean(x^2) + eps) over n elements.
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
  return 1.0F / std::sqrt(horizontal_sum(sum) / static_cast<float>(n) + eps);
}

// out = x * inverse_rms(x) * weight; out may be x.
inline void rms_norm_row(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const VecF inverse = broadcast(inverse_rms(x, n, eps));
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) store(out + i, load(x + i) * inverse * load(weight + i));
  if (i < n) store_part(out + i, load_part(x + i, n - i) * inverse * load_part(weight + i, n - i), n - i);
}

// Rotate-half RoPE of one head in place; angles: head_dim / 2 cosines, then as many sines.
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

}  // namespace winnow::cpu
