// Where the elements of one head of one row's keys, or values, are in a block.
#pragma once

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

struct HeadElements {
  float* at = nullptr;
  int64_t stride = 1;  // between two elements: the keys of a block are transposed
};

// Returns those of a row's head: of its keys, and from n_kv_heads on of its values.
inline HeadElements head_elements(const kernels::KvSpan& kv, int64_t row, int64_t head,
                                  const kernels::HeadShape& heads) {
  float* block = kv_blocks(kv) + row / kRowTile * kv_block_count(heads);
  if (head < heads.n_kv_heads) return {block + head * heads.head_dim * kRowTile + row % kRowTile, kRowTile};
  const int64_t of_values = (head - heads.n_kv_heads) * kRowTile + row % kRowTile;
  return {block + key_block_count(heads) + of_values * padded_head_dim(heads.head_dim), 1};
}

}  // namespace winnow::cpu
