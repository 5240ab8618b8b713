// Quantised weights on their way to a device, and the only definition of the numbers that they stand for, for host and
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
  // The exponent is rebiased. A subnormal number is what it adds to the least normal one: no float32 is subnormal on
  // the way, which some processors are slow at.
  const float value = magnitude < (1U << 23) ? __builtin_bit_cast(float, magnitude + (121U << 23)) - 0x1p-6F
                                             : __builtin_bit_cast(float, magnitude + (120U << 23));
  const uint32_t bits = (code & 0x7FU) == 0x7FU ? 0x7FC00000U : __builtin_bit_cast(uint32_t, value);
  return __builtin_bit_cast(float, bits | sign);
}

// How rows are packed: each as its scales in float32, of codes of four bits its zero points in float32 besides, then
// its codes, of four bits the first of two in the lower half of a byte. A row has its scales even where it shares them
// with others, so that any rows can be packed, in any order.
struct PackedRows {
  int64_t cols = 0;
  int64_t block_cols = 1;  // that share a scale
  int32_t code_bits = 8;   // 8: FP8 (e4m3fn), 4: integers from 0 to 15, less a zero point

  WINNOW_HOST_DEVICE int64_t n_scales() const { return (cols + block_cols - 1) / block_cols; }
  // Returns where the codes begin in a row, bytes.
  WINNOW_HOST_DEVICE int64_t codes_at() const { return n_scales() * (code_bits == 4 ? 8 : 4); }
  WINNOW_HOST_DEVICE int64_t code_bytes() const { return (cols * code_bits + 7) / 8; }
  // Returns the size of a row, bytes: a multiple of a scale's.
  WINNOW_HOST_DEVICE int64_t row_bytes() const { return codes_at() + (code_bytes() + 3) / 4 * 4; }
};

// Returns the value in a column of a packed row, which is aligned to 4 bytes: code times scale, rounded once. The
// difference of a code and its zero point is exact.
WINNOW_HOST_DEVICE inline float packed_value(const PackedRows& rows, const std::byte* row, int64_t col) {
  const float* scales = reinterpret_cast<const float*>(row);
  const int64_t block = col / rows.block_cols;
  const std::byte* codes = row + rows.codes_at();
  if (rows.code_bits == 8) return e4m3_to_float(static_cast<uint8_t>(codes[col])) * scales[block];
  const unsigned code = static_cast<unsigned>(codes[col / 2]) >> (col % 2 * 4) & 0xFU;
  return (static_cast<float>(code) - scales[rows.n_scales() + block]) * scales[block];
}

}  // namespace winnow::kernels
