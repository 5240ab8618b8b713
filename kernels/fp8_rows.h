// FP8 weights on their way to a device, and the only definition of the numbers that they stand for, for host and
// device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/host_device.h"

namespace winnow::kernels {

// Returns the number of a code. F8_E4M3 of safetensors is e4m3fn: no infinity, NaN is all ones. Exact.
WINNOW_HOST_DEVICE inline float e4m3_to_float(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80U) << 24;
  const uint32_t magnitude = static_cast<uint32_t>(code & 0x7FU) << 20;
  // 2^120 rebiases the exponent, and normalises subnormals exactly.
  const float value = __builtin_bit_cast(float, magnitude) * 0x1p120F;
  const uint32_t bits = (code & 0x7FU) == 0x7FU ? 0x7FC00000U : __builtin_bit_cast(uint32_t, value);
  return __builtin_bit_cast(float, bits | sign);
}

// How rows are packed: each as its scales in float32, then its codes. A row has its scales even where it shares them
// with others, so that any rows can be packed, in any order.
struct Fp8Rows {
  int64_t cols = 0;
  int64_t block_cols = 1;  // that share a scale

  WINNOW_HOST_DEVICE int64_t n_scales() const { return (cols + block_cols - 1) / block_cols; }
  // Returns the size of a row, bytes: a multiple of a scale's.
  WINNOW_HOST_DEVICE int64_t row_bytes() const { return (n_scales() + (cols + 3) / 4) * 4; }
};

// Returns the value in a column of a packed row, which is aligned to 4 bytes: code times scale, rounded once.
WINNOW_HOST_DEVICE inline float fp8_value(const Fp8Rows& rows, const std::byte* row, int64_t col) {
  const float scale = reinterpret_cast<const float*>(row)[col / rows.block_cols];
  return e4m3_to_float(static_cast<uint8_t>(row[rows.n_scales() * 4 + col])) * scale;
}

}  // namespace winnow::kernels
