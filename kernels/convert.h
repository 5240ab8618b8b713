// Between the number types of checkpoints and of backends.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/tensor.h"

// __builtin_bit_cast, as std::bit_cast is a function of the host: nvcc warns, and leaves it out of a kernel.
namespace winnow::kernels {

// Returns the value, exactly.
WINNOW_HOST_DEVICE inline float bfloat16_to_float(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

// Returns the nearest bfloat16, ties to even; NaN stays NaN.
WINNOW_HOST_DEVICE inline uint16_t float_to_bfloat16(float value) {
  const auto bits = __builtin_bit_cast(uint32_t, value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

// Converts `count` elements of any floating-point type to float32, exactly; `from` need not be aligned.
void to_float32(const std::byte* from, DType dtype, int64_t count, float* to);
// Elements [first, first + count) of a tensor, stored or computed, as float32.
void read_float32(const HostTensor& tensor, int64_t first, int64_t count, float* to);

}  // namespace winnow::kernels
