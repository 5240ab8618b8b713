#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::rms_norm(const void* x, const kernels::Matrix& weight, float eps, void* out, int64_t n_rows) {
  const auto* from = static_cast<const float*>(x);
  auto* to = static_cast<float*>(out);
  const auto* scale = static_cast<const float*>(weight.data);
  const int64_t cols = weight.rows;
  pool_.run(n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      kernels_.rms_norm_row(from + i * cols, scale, cols, eps, to + i * cols);
    }
  });
}

}  // namespace winnow::cpu
