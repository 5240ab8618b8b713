#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::do_rms_norm(kernels::ConstRows x, const kernels::Matrix& weight, float eps, kernels::Rows out) {
  const auto* from = x.as<float>();
  auto* to = out.as<float>();
  const auto* scale = weight.as<float>();
  const int64_t cols = x.cols;
  pool_.run(x.n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      kernels_.rms_norm_row(from + i * cols, scale, cols, eps, to + i * cols);
    }
  });
}

}  // namespace winnow::cpu
