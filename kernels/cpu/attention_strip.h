// What the attention of a tile of rows and that of a single row share: products of a strip of rows with a block of keys
// or values, and the online softmax over groups of blocks. Both do the same arithmetic in the same order, so a row of
// generated text is, bit for bit, the row of a pass over the whole text.
#pragma once

#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/simd.h"

namespace winnow::cpu {

// Key blocks between two rescalings of the running sums; groups begin at absolute multiples.
inline constexpr int64_t kGroupBlocks = 4;
inline constexpr int64_t kGroupKeys = kGroupBlocks * kRowTile;
inline constexpr float kHidden = -std::numeric_limits<float>::infinity();

// Rows of a register tile of the small products below.
inline constexpr int64_t kStripRows = 4;

// c[r, :] (+)= sum over k of a[r, k] * b[k, :] for kStripRows rows and kVecs vectors of columns. Each element is one
// chain of fused multiply-adds over k, whatever the tile it is computed in.
template <int kVecs, bool kAccumulate>
inline void multiply_strip(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
                           int64_t n_k) {
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

// The same for any number of columns that is a multiple of 16, kRegisterVecs vectors at a time: as many as leave the
// accumulators in registers.
template <bool kAccumulate>
void multiply_columns(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t n_k,
                      int64_t n_columns) {
  constexpr int kRegisterVecs = kVec == 16 ? 4 : 2;
  int64_t j = 0;
  for (; j + kRegisterVecs * kVec <= n_columns; j += kRegisterVecs * kVec) {
    multiply_strip<kRegisterVecs, kAccumulate>(a, lda, b + j, ldb, c + j, ldc, n_k);
  }
  for (; j + 2 * kVec <= n_columns; j += 2 * kVec) {
    multiply_strip<2, kAccumulate>(a, lda, b + j, ldb, c + j, ldc, n_k);
  }
  for (; j < n_columns; j += kVec) multiply_strip<1, kAccumulate>(a, lda, b + j, ldb, c + j, ldc, n_k);
}

// Keys that a strip of rows sees of one block, as a hull [begin, end) within the block, and whether each row of the
// strip sees all of it.
struct Hull {
  int64_t begin = kRowTile;
  int64_t end = 0;
  bool whole = true;
};

// Softmax of one row over the keys so far.
struct Running {
  float max = kHidden;  // of the scores, times log2(e)
  float sum = 0.0F;     // of exp2(score - max)
};

// Turns a row's scores of one group, (n_blocks, kRowTile), into exp2(score - maximum) and rescales what the row has so
// far: its sum, and `out` (out_count, whole vectors).
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

}  // namespace winnow::cpu
