#include <algorithm>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

void norm_and_rotate(const VectorKernels& kernels, const kernels::HeadNorm& norm, const float* angles, int64_t head_dim,
                     float* head) {
  if (norm.weight) kernels.rms_norm_row(head, norm.weight.as<float>(), head_dim, norm.eps, head);
  kernels.rotate_row(head, angles, head_dim);
}

const float* angles_of(const kernels::RowAngles& angles, int64_t row) {
  const int64_t position = std::min<int64_t>(angles.positions[static_cast<std::size_t>(row)], angles.cos_sin.rows - 1);
  return angles.cos_sin.as<float>() + position * angles.cos_sin.cols;
}

}  // namespace

void CpuBackend::do_rope(kernels::Rows q, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                         const kernels::RowAngles& angles) {
  auto* data = q.as<float>();
  pool_.run(q.n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t i = tile * kRowTile; i < (tile + 1) * kRowTile; ++i) {
      const float* row_angles = angles_of(angles, i);
      for (int64_t h = 0; h < heads.n_heads; ++h) {
        norm_and_rotate(kernels_, norm, row_angles, heads.head_dim, data + i * heads.q_dim() + h * heads.head_dim);
      }
    }
  });
}

void CpuBackend::do_store_kv(kernels::Rows kv, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                             const kernels::RowAngles& angles, kernels::KvSpan to) {
  auto* data = kv.as<float>();
  const int64_t kv_dim = heads.kv_dim();
  const int64_t head_dim = heads.head_dim;
  const int64_t value_stride = padded_head_dim(head_dim);
  float* blocks = kv_blocks(to);
  pool_.run(kv.n_rows / kRowTile, [&](int64_t tile, int) {
    float* keys = blocks + tile * kv_block_count(heads);
    float* values = keys + key_block_count(heads);
    for (int64_t r = 0; r < kRowTile; ++r) {
      const int64_t row = tile * kRowTile + r;
      const float* row_angles = angles_of(angles, row);
      for (int64_t h = 0; h < heads.n_kv_heads; ++h) {
        float* key = data + row * 2 * kv_dim + h * head_dim;
        norm_and_rotate(kernels_, norm, row_angles, head_dim, key);
        const float* value = key + kv_dim;
        for (int64_t d = 0; d < head_dim; ++d) keys[(h * head_dim + d) * kRowTile + r] = key[d];
        std::copy_n(value, head_dim, values + (h * kRowTile + r) * value_stride);
      }
    }
  });
}

}  // namespace winnow::cpu
