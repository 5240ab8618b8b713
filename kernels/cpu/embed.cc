#include <cstring>

#include "kernels/convert.h"
#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::embed(const kernels::Matrix& table, const int32_t* tokens, void* out, int64_t n_rows) {
  const auto* from = static_cast<const std::byte*>(table.data);
  auto* to = static_cast<float*>(out);
  const int64_t row_bytes = table.cols * kernels::size_bytes(table.dtype);
  pool_.run(n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      float* row = to + i * table.cols;
      if (tokens[i] >= 0) {
        kernels::to_float32(from + tokens[i] * row_bytes, table.dtype, table.cols, row);
      } else {
        std::memset(row, 0, static_cast<std::size_t>(table.cols) * sizeof(float));
      }
    }
  });
}

}  // namespace winnow::cpu
