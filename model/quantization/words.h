// Integers of a few bits in words of 32.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/tensor.h"

namespace winnow::quantization {

inline constexpr int64_t kWordBits = 32;

// Words that lie `stride` words apart, from word `first`, at `data`, which may be unaligned.
struct Words {
  const std::byte* data;
  int64_t first;
  int64_t stride;

  uint32_t word(int64_t i) const {
    uint32_t word = 0;
    std::memcpy(&word, data + (first + i * stride) * static_cast<int64_t>(sizeof word), sizeof word);
    return word;
  }
  // The `bits` bits (at most 32) from bit `at` of the words as one stream, lowest first.
  uint32_t bits_at(int64_t at, int64_t bits) const {
    const int64_t shift = at % kWordBits;
    uint64_t found = word(at / kWordBits) >> shift;
    if (shift + bits > kWordBits) found |= static_cast<uint64_t>(word(at / kWordBits + 1)) << (kWordBits - shift);
    return static_cast<uint32_t>(found & ((uint64_t{1} << bits) - 1));
  }
};

// Element of an I32 or I64 tensor.
int64_t integer_at(const kernels::HostTensor& tensor, int64_t i);
// The tensor's group of each of n columns. Throws Error(kBadData) unless all are among n_groups.
std::vector<int32_t> read_groups(const kernels::HostTensor& tensor, int64_t n_cols, int64_t n_groups);

}  // namespace winnow::quantization
