// The codes in which a cache keeps keys and values of a narrower type, and what they give back: the only definition,
// for host and device, and the same bits on both. It is applied to what an engine stores, keys after RoPE.
//
//   fp8   x / scale, cast to e4m3 (to the nearest, ties to even; beyond 448 it is 448), times scale: vLLM's
//         --kv-cache-dtype fp8 (scaled_convert() of csrc/quantization/w8a8/fp8, __NV_SATFINITE). One scale for all keys
//         of a layer and one for its values: the checkpoint's k_scale and v_scale, else 1. A code is e4m3's own.
//   int8  one scale for each token and key-value head, max |x| / 127, at least 1e-6; x / scale to the nearest, ties to
//         even, times scale: vLLM's int8_per_token_head (_reshape_cache_per_token_head, since its pull request 45361).
//         A code is a signed byte. Nothing is rounded to -128, which stands for -0.
//   int4  the least value m and one scale (max - m) / 15 for each token and key-value head, both kept in bfloat16;
//         (x - m) / scale to the nearest, ties to even, from 0 to 15, times scale, plus m: KIVI's quantisation along a
//         token (arXiv 2402.02750, triton_quantize_and_pack_along_last_dim), with one group for a head. A code is from
//         0 to 15; where the scale is 0, the elements being all the same or nearly, m is what they all give back.
//
// NaN is never lost. In fp8 it is a code; int8 and int4 have none for it, so the scale is NaN of a head that has any,
// and m, and all elements of the head give NaN back: a row that sees such a key or value has no number left anyway.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/kv_type.h"
#include "kernels/convert.h"
#include "kernels/host_device.h"
#include "kernels/packed_rows.h"

// __builtin_bit_cast, as std::bit_cast is a function of the host: nvcc warns, and leaves it out of a kernel.
namespace winnow::kernels {

struct KvRounding {
  KvType type = KvType::kStored;
  // Of fp8; > 0.
  float key_scale = 1.0F;
  float value_scale = 1.0F;

  // Returns that of fp8 for a head of keys, or of values.
  WINNOW_HOST_DEVICE float scale(bool is_key) const { return is_key ? key_scale : value_scale; }
  bool operator==(const KvRounding&) const = default;
};

inline constexpr float kFp8Largest = 448.0F;
inline constexpr float kInt8Largest = 127.0F;
inline constexpr float kInt8LeastScale = 1e-6F;
inline constexpr float kInt4Largest = 15.0F;

WINNOW_HOST_DEVICE inline bool is_nan(float x) { return x != x; }

// What of a head's elements decides how each is rounded: both ends are NaN where one of them is.
struct ElementRange {
  float least = INFINITY;
  float largest = -INFINITY;
  WINNOW_HOST_DEVICE void add(float x) { add(ElementRange{x, x}); }
  // The other range may be of no element: its ends are infinite then, and each is only compared with the same end.
  WINNOW_HOST_DEVICE void add(const ElementRange& other) {
    least = other.least < least || is_nan(other.least) ? other.least : least;
    largest = other.largest > largest || is_nan(other.largest) ? other.largest : largest;
  }
};

// Returns the nearest number of e4m3, ties to even. A float between 2^k and 2^(k + 1) is rounded to multiples of
// 2^(k - 3), below 2^-6 to those of 2^-9: adding and taking away 2^23 such steps does that.
WINNOW_HOST_DEVICE inline float round_to_e4m3(float x) {
  if (is_nan(x)) return x;
  const float size = fabsf(x);
  if (size >= kFp8Largest) return copysignf(kFp8Largest, x);
  constexpr uint32_t kExponentOfLeastNormal = 127 - 6;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, size) >> 23U;
  const uint32_t of_steps = (exponent < kExponentOfLeastNormal ? kExponentOfLeastNormal : exponent) - 3 + 23;
  const float steps = __builtin_bit_cast(float, of_steps << 23U);
  return copysignf((size + steps) - steps, x);
}

// Returns the code of a number of e4m3, or of NaN.
WINNOW_HOST_DEVICE inline uint8_t e4m3_code(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t sign = bits >> 24U & 0x80U;
  if (is_nan(x)) return static_cast<uint8_t>(sign | 0x7FU);
  const float size = fabsf(x);
  // Below the least normal number the code counts steps; above, it is the exponent and the mantissa, rebiased.
  constexpr uint32_t kRebias = (127U - 7U) << 3U;
  const uint32_t code = size < 0x1p-6F ? static_cast<uint32_t>(size * 0x1p9F) : (bits >> 20U & 0x7FFU) - kRebias;
  return static_cast<uint8_t>(sign | code);
}

// Returns x within the limits; 0 for NaN, of which the scale tells.
WINNOW_HOST_DEVICE inline float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return is_nan(x) ? 0.0F : above > high ? high : above;
}

// What is kept of a head beside its codes: nothing of fp8, a scale of int8, two numbers of bfloat16 of int4.
struct HeadScale {
  float scale = 1.0F;
  float least = 0.0F;  // of int4
};

// Rounds the elements of one head of one token's keys, or values. A code stands for a number, of e4m3 or an integer: an
// element is rounded to the nearest of them, and what is given back is made of the number. So nothing has to be a code
// where nothing is kept.
class HeadRounding {
 public:
  // Rounds a head all of whose elements were shown to `range`, for int8 and int4. scale: of fp8.
  WINNOW_HOST_DEVICE HeadRounding(KvType type, float scale, const ElementRange& range) : type_(type), kept_{scale} {
    if (type == KvType::kInt8) {
      const float largest = range.largest > -range.least ? range.largest : -range.least;
      const float of_head = largest / kInt8Largest;
      kept_.scale = of_head > kInt8LeastScale || is_nan(of_head) ? of_head : kInt8LeastScale;
      inverse_ = 1.0F / kept_.scale;
    } else if (type == KvType::kInt4) {
      kept_.least = bfloat16_to_float(float_to_bfloat16(range.least));
      kept_.scale = bfloat16_to_float(float_to_bfloat16((range.largest - range.least) / kInt4Largest));
    }
  }
  // Gives back what was kept; rounds nothing.
  WINNOW_HOST_DEVICE HeadRounding(KvType type, const HeadScale& kept) : type_(type), kept_(kept) {}

  WINNOW_HOST_DEVICE const HeadScale& kept() const { return kept_; }

  // Returns the code of an element, of int4 in the lower half of the byte.
  WINNOW_HOST_DEVICE uint8_t encode(float x) const {
    const float number = nearest(x);
    if (type_ == KvType::kFp8) return e4m3_code(number);
    const bool is_minus_zero = number == 0.0F && __builtin_bit_cast(uint32_t, number) != 0U;
    if (type_ == KvType::kInt8 && is_minus_zero) return kInt8MinusZero;
    return static_cast<uint8_t>(static_cast<int32_t>(number));
  }
  // Returns what a code gives back.
  WINNOW_HOST_DEVICE float decode(uint8_t code) const {
    if (type_ == KvType::kFp8) return given_back(e4m3_to_float(code));
    if (type_ == KvType::kInt4) return given_back(static_cast<float>(code));
    return given_back(code == kInt8MinusZero ? -0.0F : static_cast<float>(static_cast<int8_t>(code)));
  }
  // Returns what is left of an element: decode(encode(x)).
  WINNOW_HOST_DEVICE float operator()(float x) const { return type_ == KvType::kStored ? x : given_back(nearest(x)); }

 private:
  static constexpr uint8_t kInt8MinusZero = 0x80;

  WINNOW_HOST_DEVICE float nearest(float x) const {
    if (type_ == KvType::kFp8) return round_to_e4m3(x / kept_.scale);
    if (type_ == KvType::kInt8) return clamped(rintf(x * inverse_), -kInt8Largest, kInt8Largest);
    return kept_.scale > 0.0F ? clamped(rintf((x - kept_.least) / kept_.scale), 0.0F, kInt4Largest) : 0.0F;
  }
  WINNOW_HOST_DEVICE float given_back(float number) const {
    if (type_ != KvType::kInt4) return number * kept_.scale;
    return kept_.scale > 0.0F ? fmaf(number, kept_.scale, kept_.least) : kept_.least;
  }

  KvType type_;
  HeadScale kept_;
  float inverse_ = 1.0F;  // of the scale
};

}  // namespace winnow::kernels
