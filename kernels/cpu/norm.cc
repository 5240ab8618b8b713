#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

void CpuBackend::do_norm(kernels::ConstRows x, const kernels::Norm& norm, kernels::Rows out) {
  const auto* from = x.as<float>();
  auto* to = out.as<float>();
  const auto* weight = norm.weight.as<float>();
  const int64_t cols = x.cols;
  pool_.run(x.n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      if (norm) {
        kernels_.norm_row(from + i * cols, weight, cols, norm.shape, to + i * cols);
      } else {
        std::copy_n(from + i * cols, cols, to + i * cols);
      }
    }
  });
}

void CpuBackend::do_add(kernels::ConstRows delta, const kernels::Norm& norm, float scale, kernels::Rows residual) {
  const auto* from = delta.as<float>();
  auto* to = residual.as<float>();
  const auto* weight = norm.weight.as<float>();
  const int64_t cols = delta.cols;
  pool_.run(delta.n_rows / kRowTile, [&](int64_t tile, int) {
    std::vector<float> normed(static_cast<std::size_t>(norm ? cols : 0));
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      const float* row = from + i * cols;
      if (norm) kernels_.norm_row(row, weight, cols, norm.shape, normed.data());
      kernels_.add_row(norm ? normed.data() : row, cols, scale, to + i * cols);
    }
  });
}

}  // namespace winnow::cpu
