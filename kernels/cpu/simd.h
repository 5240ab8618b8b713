// Vectors of the processor that a file is compiled for, through GCC's and clang's vector extensions. With internal
// linkage throughout: vector_kernels.cc says why.
//
// Loops over a row are written with these, not left to the auto-vectoriser: it may peel for alignment, and a sum's
// rounding would then depend on where the row lies in memory (see the row contract in kernels/ops.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace winnow::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int64_t kVec = 16;
#elif defined(__AVX__)
constexpr int64_t kVec = 8;
#else
constexpr int64_t kVec = 4;
#endif

using VecF = float __attribute__((vector_size(kVec * sizeof(float))));
using VecU = uint32_t __attribute__((vector_size(kVec * sizeof(uint32_t))));

// Returns x in every element. Zeros are subtracted from it: x + 0 is not x for -0, so that a compiler would really add.
inline VecF broadcast(float x) { return x - VecF{}; }

inline VecF load(const float* p) {
  VecF v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, VecF v) { std::memcpy(p, &v, sizeof v); }

// Returns the first n < kVec elements, the others 0.
inline VecF load_part(const float* p, int64_t n) {
  VecF v{};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
}

inline void store_part(float* p, VecF v, int64_t n) { std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float)); }

inline VecF max(VecF a, VecF b) { return a > b ? a : b; }
inline VecF min(VecF a, VecF b) { return a < b ? a : b; }

// Return sum and maximum over the elements, in a fixed order (halving).
inline float horizontal_sum(VecF v) {
  for (int64_t half = kVec / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}

inline float horizontal_max(VecF v) {
  for (int64_t half = kVec / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  }
  return v[0];
}

// Returns 2^x to about one unit in the last place. Exactly 1 at 0 and exactly 0 below -126 (so also at -infinity): a
// masked key adds nothing to a row, which is what lets a row skip tiles that others need. x <= 127; NaN stays NaN.
// Taylor series of 2^f on |f| <= 1/2: the first term left out is (ln 2 / 2)^8 / 8! = 5e-9.
inline VecF exp2(VecF x) {
  const VecF clamped = x < -126.0F ? broadcast(-126.0F) : x;
  const VecF shifted = clamped + 12582912.0F;  // 1.5 * 2^23: rounds to the nearest integer
  const VecF whole = shifted - 12582912.0F;
  const VecF f = clamped - whole;
  VecF p = broadcast(1.52527338e-5F);  // (ln 2)^7 / 7!
  p = p * f + 1.54035304e-4F;
  p = p * f + 1.33335581e-3F;
  p = p * f + 9.61812911e-3F;
  p = p * f + 5.55041087e-2F;
  p = p * f + 2.40226507e-1F;
  p = p * f + 6.93147181e-1F;
  p = p * f + 1.0F;
  // The low bits of `shifted` are the integer. A conversion of `whole` would be undefined for NaN, and was seen to fold
  // 2^NaN to 0 and to 1.
  VecU exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  exponent = (exponent + 127U) << 23;
  VecF power;
  std::memcpy(&power, &exponent, sizeof power);
  const VecF result = p * power;
  return x < -126.0F ? VecF{} : result;
}

}  // namespace
}  // namespace winnow::cpu
