#include <algorithm>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Rows of one block to rows of one block: `count` rows from row `from_row` of the one to row `to_row` of the other.
struct BlockRows {
  const float* from;
  int64_t from_row;
  float* to;
  int64_t to_row;
  int64_t count;
};

void copy_block(const BlockRows& rows, const kernels::HeadShape& heads) {
  for (int64_t d = 0; d < heads.kv_dim(); ++d) {
    std::copy_n(rows.from + d * kRowTile + rows.from_row, rows.count, rows.to + d * kRowTile + rows.to_row);
  }
  const int64_t stride = padded_head_dim(heads.head_dim);
  for (int64_t h = 0; h < heads.n_kv_heads; ++h) {
    const int64_t head = key_block_count(heads) + h * kRowTile * stride;
    std::copy_n(rows.from + head + rows.from_row * stride, rows.count * stride, rows.to + head + rows.to_row * stride);
  }
}

}  // namespace

void CpuBackend::do_copy_kv(std::span<const kernels::KvCopy> copies, const kernels::HeadShape& heads) {
  pool_.run(static_cast<int64_t>(copies.size()), [&](int64_t task, int) {
    const kernels::KvCopy& copy = copies[static_cast<std::size_t>(task)];
    for (int64_t done = 0; done < copy.n_rows;) {
      const int64_t from = copy.from_row + done;
      const int64_t to = copy.to_row + done;
      const int64_t count = std::min({copy.n_rows - done, kRowTile - from % kRowTile, kRowTile - to % kRowTile});
      copy_block({kv_blocks(copy.from) + from / kRowTile * kv_block_count(heads), from % kRowTile,
                  kv_blocks(copy.to) + to / kRowTile * kv_block_count(heads), to % kRowTile, count},
                 heads);
      done += count;
    }
  });
}

}  // namespace winnow::cpu
