#include <cstring>

#include "kernels/convert.h"
#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::do_embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float scale,
                          kernels::Rows out) {
  const auto* from = static_cast<const std::byte*>(table.data);  // of the checkpoint's type
  auto* to = out.as<float>();
  const int64_t row_bytes = table.cols * kernels::size_bytes(table.dtype);
  pool_.run(out.n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      float* row = to + i * table.cols;
      const int32_t token = tokens[static_cast<std::size_t>(i)];
      if (token >= 0) {
        kernels::to_float32(from + token * row_bytes, table.dtype, table.cols, row);
        if (scale == 1.F) continue;
        for (int64_t c = 0; c < table.cols; ++c) row[c] *= scale;
      } else {
        std::memset(row, 0, static_cast<std::size_t>(table.cols) * sizeof(float));
      }
    }
  });
}

}  // namespace winnow::cpu
