#include <algorithm>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Rounds the n elements of one head of one row, which lie `stride` apart in `from` and in `to`.
void round_head(KvType type, float scale, const float* from, float* to, int64_t n, int64_t stride) {
  kernels::ElementRange range;
  for (int64_t d = 0; type != KvType::kFp8 && d < n; ++d) range.add(from[d * stride]);
  const kernels::HeadRounding rounding(type, scale, range);
  for (int64_t d = 0; d < n; ++d) to[d * stride] = rounding(from[d * stride]);
}

// Where a row's keys and values begin: the keys of a block are transposed.
struct RowInBlock {
  RowInBlock(const kernels::KvSpan& kv, int64_t row, const kernels::HeadShape& heads)
      : keys(kv_blocks(kv) + row / kRowTile * kv_block_count(heads) + row % kRowTile),
        values(keys - row % kRowTile + key_block_count(heads) + row % kRowTile * padded_head_dim(heads.head_dim)) {}
  float* keys;
  float* values;
};

void round_row(const kernels::KvRounding& rounding, const RowInBlock& from, const RowInBlock& to,
               const kernels::HeadShape& heads) {
  for (int64_t h = 0; h < heads.n_kv_heads; ++h) {
    const int64_t key = h * heads.head_dim * kRowTile;
    round_head(rounding.type, rounding.key_scale, from.keys + key, to.keys + key, heads.head_dim, kRowTile);
    const int64_t value = h * kRowTile * padded_head_dim(heads.head_dim);
    round_head(rounding.type, rounding.value_scale, from.values + value, to.values + value, heads.head_dim, 1);
  }
}

}  // namespace

void CpuBackend::do_round_kv(std::span<const kernels::KvCopy> copies, const kernels::KvRounding& rounding,
                             const kernels::HeadShape& heads) {
  for (const kernels::KvCopy& copy : copies) {
    pool_.run((copy.n_rows + kRowTile - 1) / kRowTile, [&](int64_t task, int) {
      const int64_t end = std::min((task + 1) * kRowTile, copy.n_rows);
      for (int64_t r = task * kRowTile; r < end; ++r) {
        round_row(rounding, {copy.from, copy.from_row + r, heads}, {copy.to, copy.to_row + r, heads}, heads);
      }
    });
  }
}

}  // namespace winnow::cpu
