#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/head_elements.h"

namespace winnow::cpu {

namespace {

// Codes of one head of one row from its n elements.
void pack_head(const kernels::HeadRounding& rounding, const HeadElements& from, bool in_halves, int64_t n,
               std::byte* codes) {
  if (in_halves) {
    for (int64_t d = 0; d < n; d += 2) {
      const unsigned low = rounding.encode(from.at[d * from.stride]);
      const unsigned high = rounding.encode(from.at[(d + 1) * from.stride]);
      codes[d / 2] = static_cast<std::byte>(low | high << 4U);
    }
  } else {
    for (int64_t d = 0; d < n; ++d) codes[d] = static_cast<std::byte>(rounding.encode(from.at[d * from.stride]));
  }
}

void unpack_head(const kernels::HeadRounding& rounding, const std::byte* codes, bool in_halves, int64_t n,
                 const HeadElements& to) {
  if (in_halves) {
    for (int64_t d = 0; d < n; d += 2) {
      const auto both = static_cast<unsigned>(codes[d / 2]);
      to.at[d * to.stride] = rounding.decode(static_cast<uint8_t>(both & 0xFU));
      to.at[(d + 1) * to.stride] = rounding.decode(static_cast<uint8_t>(both >> 4U));
    }
  } else {
    for (int64_t d = 0; d < n; ++d) to.at[d * to.stride] = rounding.decode(static_cast<uint8_t>(codes[d]));
  }
}

// Calls body(row, h) for each row, counted from the first, and head of some rows: a tile of rows a task, a head's rows
// one after another, as they share lines of memory.
template <typename Body>
void for_each_head(ThreadPool& pool, const kernels::KvPacking& rows, Body body) {
  pool.run((rows.n_rows + kRowTile - 1) / kRowTile, [&](int64_t task, int) {
    const int64_t end = std::min((task + 1) * kRowTile, rows.n_rows);
    for (int64_t h = 0; h < rows.packed.row_heads; ++h) {
      for (int64_t row = task * kRowTile; row < end; ++row) body(row, h);
    }
  });
}

}  // namespace

void CpuBackend::do_pack_kv(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                            const kernels::HeadShape& heads) {
  const KvType type = rounding.type;
  for (const kernels::KvPacking& some : rows) {
    for_each_head(pool_, some, [&](int64_t row, int64_t h) {
      const HeadElements from = head_elements(some.kv, some.kv_row + row, h, heads);
      const int64_t head = (some.packed_row + row) * some.packed.row_heads + h;
      kernels::ElementRange range;
      for (int64_t d = 0; type != KvType::kFp8 && d < heads.head_dim; ++d) range.add(from.at[d * from.stride]);
      const kernels::HeadRounding of_head(type, rounding.scale(h < heads.n_kv_heads), range);
      pack_head(of_head, from, type == KvType::kInt4, heads.head_dim, some.packed.codes(head));
      if (type != KvType::kFp8) *some.packed.scale(head) = kernels::scale_word(type, of_head.kept());
    });
  }
}

void CpuBackend::do_unpack_kv(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                              const kernels::HeadShape& heads) {
  const KvType type = rounding.type;
  for (const kernels::KvPacking& some : rows) {
    for_each_head(pool_, some, [&](int64_t row, int64_t h) {
      const int64_t head = (some.packed_row + row) * some.packed.row_heads + h;
      const kernels::HeadScale kept = type == KvType::kFp8 ? kernels::HeadScale{rounding.scale(h < heads.n_kv_heads)}
                                                           : kernels::scale_of(type, *some.packed.scale(head));
      unpack_head({type, kept}, some.packed.codes(head), type == KvType::kInt4, heads.head_dim,
                  head_elements(some.kv, some.kv_row + row, h, heads));
    });
  }
}

}  // namespace winnow::cpu
