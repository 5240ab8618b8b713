#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/row.h"

namespace winnow::cpu {

void CpuBackend::rms_norm(const void* x, const Matrix& weight, float eps, void* out, int64_t n_rows) {
  const auto* from = static_cast<const float*>(x);
  auto* to = static_cast<float*>(out);
  const auto* scale = static_cast<const float*>(weight.data);
  const int64_t cols = weight.rows;
#pragma omp parallel for schedule(static) num_threads(n_threads_)
  for (int64_t i = 0; i < n_rows; ++i) rms_norm_row(from + i * cols, scale, cols, eps, to + i * cols);
}

}  // namespace winnow::cpu
