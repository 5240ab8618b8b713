// Vector kernels of attention: products of a strip of rows with a block of keys or values, and the online softmax over
// groups of blocks. The attention of a tile of rows and that of a single row both use them, so a row of generated text
// is, bit for bit, the row of a pass over the whole text.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/cpu/vector_kernels.h"

namespace winnow::cpu {
namespace {

// Computes c[r, :] (+)= sum over k of a[r, k] * b[k, :] for kStripRows rows and kVecs vectors of columns. Each element
// is one chain of fused multiply-adds over k, whatever the tile it is computed in.
template <int kVecs, bool kAccumulate>
inline void multiply_vectors(const StripProduct& product, int64_t first_column) {
  const auto& [a, lda, all_b, ldb, all_c, ldc, n_k, n_columns] = product;
  const float* b = all_b + first_column;
  float* c = all_c + first_column;
  VecF sum[kStripRows][kVecs];
  for (int r = 0; r < kStripRows; ++r) {
    for (int v = 0; v < kVecs; ++v) sum[r][v] = kAccumulate ? load(c + r * ldc + v * kVec) : VecF{};
  }
  for (int64_t k = 0; k < n_k; ++k) {
    VecF column[kVecs];
    for (int v = 0; v < kVecs; ++v) column[v] = load(b + k * ldb + v * kVec);
    for (int r = 0; r < kStripRows; ++r) {
      const VecF factor = broadcast(a[r * lda + k]);
      for (int v = 0; v < kVecs; ++v) sum[r][v] += factor * column[v];
    }
  }
  for (int r = 0; r < kStripRows; ++r) {
    for (int v = 0; v < kVecs; ++v) store(c + r * ldc + v * kVec, sum[r][v]);
  }
}

// Computes all columns, kRegisterVecs vectors at a time: as many as leave the accumulators in registers.
template <bool kAccumulate>
void multiply_columns(const StripProduct& product) {
  constexpr int kRegisterVecs = kVec == 16 ? 4 : 2;
  int64_t j = 0;
  for (; j + kRegisterVecs * kVec <= product.n_columns; j += kRegisterVecs * kVec) {
    multiply_vectors<kRegisterVecs, kAccumulate>(product, j);
  }
  for (; j + 2 * kVec <= product.n_columns; j += 2 * kVec) multiply_vectors<2, kAccumulate>(product, j);
  for (; j < product.n_columns; j += kVec) multiply_vectors<1, kAccumulate>(product, j);
}

inline void soften(float* scores, const Hull* hulls, int64_t n_blocks, Running& running, float* out,
                   int64_t out_count) {
  VecF highest = broadcast(running.max);
  for (int64_t i = 0; i < n_blocks; ++i) {
    for (int64_t j = hulls[i].begin; j < hulls[i].end; j += kVec) {
      highest = max(highest, load(scores + i * kRowTile + j));
    }
  }
  const float new_max = horizontal_max(highest);
  const float reference = new_max == kHidden ? 0.0F : new_max;
  VecF sum{};
  for (int64_t i = 0; i < n_blocks; ++i) {
    for (int64_t j = hulls[i].begin; j < hulls[i].end; j += kVec) {
      float* at = scores + i * kRowTile + j;
      const VecF p = exp2(load(at) - reference);
      store(at, p);
      sum += p;
    }
  }
  if (new_max != running.max) {
    const float rescale = exp2(broadcast(running.max - reference))[0];
    running.sum *= rescale;
    for (int64_t d = 0; d < out_count; d += kVec) store(out + d, load(out + d) * rescale);
  }
  running.sum += horizontal_sum(sum);
  running.max = new_max;
}

inline void score_block(const float* query, const float* keys, int64_t head_dim, float* scores) {
  VecF sum[kRowTile / kVec] = {};
  for (int64_t d = 0; d < head_dim; ++d) {
    const VecF factor = broadcast(query[d]);
    for (int64_t v = 0; v < kRowTile / kVec; ++v) sum[v] += factor * load(keys + d * kRowTile + v * kVec);
  }
  for (int64_t v = 0; v < kRowTile / kVec; ++v) store(scores + v * kVec, sum[v]);
}

inline void exp2_row(float* x, int64_t n, float shift) {
  for (int64_t i = 0; i < n; i += kVec) store(x + i, exp2(load(x + i) - shift));
}

inline float sum_row(const float* x, int64_t n) {
  VecF sum{};
  for (int64_t i = 0; i < n; i += kVec) sum += load(x + i);
  return horizontal_sum(sum);
}

}  // namespace
}  // namespace winnow::cpu
