#include <algorithm>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Norms and turns the n_heads heads of one row, one after another.
void norm_and_rotate(const VectorKernels& kernels, const kernels::HeadNorm& norm, const float* angles, int64_t n_heads,
                     int64_t head_dim, float* heads) {
  const auto norm_heads = [&] {
    const int64_t n = norm.norm.weight.rows;  // of one head, or of all
    for (int64_t at = 0; norm.norm && at < n_heads * head_dim; at += n) {
      kernels.norm_row(heads + at, norm.norm.weight.as<float>(), n, norm.norm.shape, heads + at);
    }
  };
  if (!norm.after_rope) norm_heads();
  for (int64_t h = 0; h < n_heads; ++h) kernels.rotate_row(heads + h * head_dim, angles, head_dim);
  if (norm.after_rope) norm_heads();
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
      norm_and_rotate(kernels_, norm, angles_of(angles, i), heads.n_heads, heads.head_dim, data + i * heads.q_dim());
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
      norm_and_rotate(kernels_, norm, angles_of(angles, row), heads.n_kv_heads, head_dim, data + row * 2 * kv_dim);
      for (int64_t h = 0; h < heads.n_kv_heads; ++h) {
        const float* key = data + row * 2 * kv_dim + h * head_dim;
        const float* value = key + kv_dim;
        for (int64_t d = 0; d < head_dim; ++d) keys[(h * head_dim + d) * kRowTile + r] = key[d];
        std::copy_n(value, head_dim, values + (h * kRowTile + r) * value_stride);
      }
    }
  });
}

}  // namespace winnow::cpu
