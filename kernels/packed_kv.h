// Keys and values of a layer's rows as the codes of a narrower type (kernels/kv_rounding.h), in the memory of a
// backend: what a cache holds of a layer with a type. One layout for all backends, two arrays one behind the other:
//
//   codes   (n_rows, row_heads, code_bytes)  row_heads = 2 * n_kv_heads: a row's heads of keys, then those of its
//   values.
//           An element is a byte; of int4 half a byte, the first of two in the lower half.
//   scales  (n_rows, row_heads, 4 bytes)  of int8 the scale, float32; of int4 the scale and then the least value,
//           bfloat16 both. fp8 has none: its two scales are the layer's (KvRounding).
//
// Together that is n_rows * row_heads * kv_head_bytes(type, head_dim) bytes. Memory of zeros gives zeros back. Codes
// are apart from the scales so that 8 of them, what a thread of a GPU takes, begin at a multiple of their size; n_rows
// is a multiple of Device::row_tile(), by which the scales are aligned too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/device.h"
#include "kernels/host_device.h"
#include "kernels/kv_rounding.h"

namespace winnow::kernels {

struct PackedKv {
  std::byte* data = nullptr;
  KvType type = KvType::kStored;
  int64_t n_rows = 0;
  int64_t row_heads = 0;
  int64_t head_dim = 0;
  int64_t head_bytes = 0;  // kv_head_bytes(): codes and scale

  explicit operator bool() const { return data != nullptr; }
  int64_t size_bytes() const { return n_rows * row_heads * head_bytes; }
  int64_t code_bytes() const { return type == KvType::kInt4 ? head_dim / 2 : head_dim; }
  // Return where a head's codes are, and its scale; heads are counted over all rows. Of fp8 the latter is the end.
  std::byte* codes(int64_t head) const { return data + head * code_bytes(); }
  uint32_t* scale(int64_t head) const {
    return reinterpret_cast<uint32_t*>(data + n_rows * row_heads * code_bytes()) + head;
  }
};

// Returns the size of n_rows rows, bytes; n_rows a multiple of Device::row_tile(), head_dim even, a type that is none
// of kStored.
inline int64_t packed_kv_bytes(KvType type, int64_t n_rows, const HeadShape& heads) {
  return n_rows * 2 * heads.n_kv_heads * kv_head_bytes(type, heads.head_dim, 0);
}

// Returns the rows at the beginning of `memory`, of packed_kv_bytes() or more, aligned to 8 bytes. Throws
// Error(kInternal) where it is smaller.
inline PackedKv packed_kv(std::span<std::byte> memory, KvType type, int64_t n_rows, const HeadShape& heads) {
  require_range(0, packed_kv_bytes(type, n_rows, heads), static_cast<int64_t>(memory.size()));
  return {memory.data(), type, n_rows, 2 * heads.n_kv_heads, heads.head_dim, kv_head_bytes(type, heads.head_dim, 0)};
}

// Returns what is kept of a head beside its codes, as it lies in memory; of fp8 it is not written.
WINNOW_HOST_DEVICE inline uint32_t scale_word(KvType type, const HeadScale& kept) {
  if (type == KvType::kInt8) return __builtin_bit_cast(uint32_t, kept.scale);
  return static_cast<uint32_t>(float_to_bfloat16(kept.least)) << 16U | float_to_bfloat16(kept.scale);
}
WINNOW_HOST_DEVICE inline HeadScale scale_of(KvType type, uint32_t word) {
  if (type == KvType::kInt8) return {__builtin_bit_cast(float, word), 0.0F};
  return {bfloat16_to_float(static_cast<uint16_t>(word & 0xFFFFU)),
          bfloat16_to_float(static_cast<uint16_t>(word >> 16U))};
}

}  // namespace winnow::kernels
