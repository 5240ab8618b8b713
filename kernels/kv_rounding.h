// What is left of a key or value that a cache keeps in a narrower type: the only definition, for host and device, and
// the same bits on both. It is applied to what an engine stores, keys after RoPE.
//
//   fp8   x / scale, cast to e4m3 (to the nearest, ties to even; beyond 448 it is 448), times scale: vLLM's
//         --kv-cache-dtype fp8 (scaled_convert() of csrc/quantization/w8a8/fp8, __NV_SATFINITE). One scale for all keys
//         of a layer and one for its values: the checkpoint's k_scale and v_scale, else 1.
//   int8  one scale for each token and key-value head, max |x| / 127, at least 1e-6; x / scale to the nearest, ties to
//         even, times scale: vLLM's int8_per_token_head (_reshape_cache_per_token_head, since its pull request 45361).
//   int4  the least value m and one scale (max - m) / 15 for each token and key-value head, both kept in bfloat16;
//         (x - m) / scale to the nearest, ties to even, from 0 to 15, times scale, plus m: KIVI's quantisation along a
//         token (arXiv 2402.02750, triton_quantize_and_pack_along_last_dim), with one group for a head.
//
// NaN stays NaN.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/kv_type.h"
#include "kernels/host_device.h"

// __builtin_bit_cast, as std::bit_cast is a function of the host: nvcc warns, and leaves it out of a kernel.
namespace winnow::kernels {

struct KvRounding {
  KvType type = KvType::kStored;
  // Of fp8; > 0.
  float key_scale = 1.0F;
  float value_scale = 1.0F;

  bool operator==(const KvRounding&) const = default;
};

inline constexpr float kFp8Largest = 448.0F;
inline constexpr float kInt8Largest = 127.0F;
inline constexpr float kInt8LeastScale = 1e-6F;
inline constexpr float kInt4Largest = 15.0F;

// What of a head's elements decides how each is rounded.
struct ElementRange {
  float least = INFINITY;
  float largest = -INFINITY;
  WINNOW_HOST_DEVICE void add(float x) {
    least = x < least ? x : least;
    largest = x > largest ? x : largest;
  }
  // The other range may be of no element: its ends are infinite then, and each is only compared with the same end.
  WINNOW_HOST_DEVICE void add(const ElementRange& other) {
    least = other.least < least ? other.least : least;
    largest = other.largest > largest ? other.largest : largest;
  }
};

// Returns the nearest number of e4m3, ties to even. A float between 2^k and 2^(k + 1) is rounded to multiples of
// 2^(k - 3), below 2^-6 to those of 2^-9: adding and taking away 2^23 such steps does that.
WINNOW_HOST_DEVICE inline float round_to_e4m3(float x) {
  if (x != x) return x;
  const float size = fabsf(x);
  if (size >= kFp8Largest) return copysignf(kFp8Largest, x);
  constexpr uint32_t kExponentOfLeastNormal = 127 - 6;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, size) >> 23U;
  const uint32_t of_steps = (exponent < kExponentOfLeastNormal ? kExponentOfLeastNormal : exponent) - 3 + 23;
  const float steps = __builtin_bit_cast(float, of_steps << 23U);
  return copysignf((size + steps) - steps, x);
}

// Returns the nearest bfloat16, ties to even; x finite.
WINNOW_HOST_DEVICE inline float round_to_bfloat16(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  return __builtin_bit_cast(float, (bits + 0x7FFFU + ((bits >> 16U) & 1U)) & 0xFFFF0000U);
}

WINNOW_HOST_DEVICE inline float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

// Rounds the elements of one head of one token's keys, or values. All its elements are shown to `range` first, for
// int8 and int4.
class HeadRounding {
 public:
  // scale: of fp8.
  WINNOW_HOST_DEVICE HeadRounding(KvType type, float scale, const ElementRange& range) : type_(type), scale_(scale) {
    if (type == KvType::kInt8) {
      const float largest = range.largest > -range.least ? range.largest : -range.least;
      const float of_head = largest / kInt8Largest;
      scale_ = of_head > kInt8LeastScale ? of_head : kInt8LeastScale;
      inverse_ = 1.0F / scale_;
    } else if (type == KvType::kInt4) {
      least_ = round_to_bfloat16(range.least);
      scale_ = round_to_bfloat16((range.largest - range.least) / kInt4Largest);
    }
  }

  WINNOW_HOST_DEVICE float operator()(float x) const {
    if (type_ == KvType::kFp8) return round_to_e4m3(x / scale_) * scale_;
    if (type_ == KvType::kInt8) return clamped(rintf(x * inverse_), -kInt8Largest - 1.0F, kInt8Largest) * scale_;
    if (type_ != KvType::kInt4) return x;
    // Of a head whose elements are all the same, or nearly, the least is all that is kept.
    if (!(scale_ > 0.0F)) return x == x ? least_ : x;
    return fmaf(clamped(rintf((x - least_) / scale_), 0.0F, kInt4Largest), scale_, least_);
  }

 private:
  KvType type_;
  float scale_;
  float inverse_ = 1.0F;  // of the scale
  float least_ = 0.0F;
};

}  // namespace winnow::kernels
