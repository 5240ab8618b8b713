#include <cblas.h>

#include <algorithm>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Output features of one product: a piece of the weight that the threads share in the last-level cache while they work
// on different rows, and what there is to share out when the rows are few.
constexpr int64_t kFeatureChunk = 1024;

}  // namespace

void CpuBackend::do_linear(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias,
                           kernels::Rows out, bool accumulate, float scale) {
  const auto* from = x.as<float>();
  auto* to = out.as<float>();
  const auto* w = weight.as<float>();
  const auto* b = bias.as<float>();
  const int64_t n_tiles = x.n_rows / kRowTile;
  const int64_t n_chunks = (weight.rows + kFeatureChunk - 1) / kFeatureChunk;
  // Tiles vary fastest: threads that run side by side read the same piece of the weight.
  pool_.run(n_tiles * n_chunks, [&](int64_t task, int) {
    const int64_t tile = task % n_tiles;
    const int64_t feature = task / n_tiles * kFeatureChunk;
    const int64_t n = std::min(kFeatureChunk, weight.rows - feature);
    float* result = to + tile * kRowTile * weight.rows + feature;
    // The shape of this call depends on the weight alone: (kRowTile, n, K).
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kRowTile, static_cast<int>(n), static_cast<int>(weight.cols),
                scale, from + tile * kRowTile * weight.cols, static_cast<int>(weight.cols), w + feature * weight.cols,
                static_cast<int>(weight.cols), accumulate ? 1.0F : 0.0F, result, static_cast<int>(weight.rows));
    if (b != nullptr) {
      for (int64_t row = 0; row < kRowTile; ++row) kernels_.add_row(b + feature, n, scale, result + row * weight.rows);
    }
  });
}

}  // namespace winnow::cpu
