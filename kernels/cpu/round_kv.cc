#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/head_elements.h"

namespace winnow::cpu {

namespace {

// Rounds the n elements of one head of one row.
void round_head(KvType type, float scale, const HeadElements& from, const HeadElements& to, int64_t n) {
  kernels::ElementRange range;
  for (int64_t d = 0; type != KvType::kFp8 && d < n; ++d) range.add(from.at[d * from.stride]);
  const kernels::HeadRounding rounding(type, scale, range);
  for (int64_t d = 0; d < n; ++d) to.at[d * to.stride] = rounding(from.at[d * from.stride]);
}

}  // namespace

void CpuBackend::do_round_kv(std::span<const kernels::KvCopy> copies, const kernels::KvRounding& rounding,
                             const kernels::HeadShape& heads) {
  for (const kernels::KvCopy& copy : copies) {
    pool_.run((copy.n_rows + kRowTile - 1) / kRowTile, [&](int64_t task, int) {
      const int64_t end = std::min((task + 1) * kRowTile, copy.n_rows);
      for (int64_t r = task * kRowTile; r < end; ++r) {
        for (int64_t h = 0; h < 2 * heads.n_kv_heads; ++h) {
          round_head(rounding.type, rounding.scale(h < heads.n_kv_heads),
                     head_elements(copy.from, copy.from_row + r, h, heads),
                     head_elements(copy.to, copy.to_row + r, h, heads), heads.head_dim);
        }
      }
    });
  }
}

}  // namespace winnow::cpu
