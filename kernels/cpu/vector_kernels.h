// Loops over rows that gain from wide vectors, compiled once for every type of processor that this build knows. The
// operations (attention.cc, swiglu.cc and so on) are compiled once and reach these through a table, so that one
// executable serves a cluster of unlike nodes and still uses AVX-512 where there is some.
//
// One source, compiled for each type, and not Highway's dynamic dispatch: attention on a Xeon with AVX-512 takes 1.01
// to 1.05 times Highway's time with AVX-512 and 0.94 to 0.96 with AVX2, so a library would add a dependency and a
// second notation for the same speed. Not target_clones either: it leaves the width of the vectors to the whole file.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/layer_kinds.h"

namespace winnow::cpu {

// Rows of a tile: every product is computed in tiles of this height at absolute rows, so that a row's rounding does
// not depend on its neighbours. 64 rows reach 90 % of OpenBLAS's rate of large products (128: 96 %) and keep the
// padding of the tail sweep's short lanes small. Also the keys of a block of the key-value layout.
inline constexpr int64_t kRowTile = 64;

// Key blocks between two rescalings of the running sums of attention; groups begin at absolute multiples.
inline constexpr int64_t kGroupBlocks = 4;
inline constexpr int64_t kGroupKeys = kGroupBlocks * kRowTile;
inline constexpr float kHidden = -std::numeric_limits<float>::infinity();  // score of a key that a row does not see
inline constexpr float kLog2E = 1.44269504F;

// Rows of a strip: what the small products of attention take at a time.
inline constexpr int64_t kStripRows = 4;

// Keys that a strip of rows sees of one block, as a hull [begin, end) within the block, both multiples of 16, and
// whether each row of the strip sees all of it.
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

// Row-major operands of a product of a strip: c (kStripRows, n_columns), a (kStripRows, n_k), b (n_k, n_columns), each
// with its distance between rows. n_columns is a multiple of 16.
struct StripProduct {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  int64_t n_k;
  int64_t n_columns;
};

// Every one of them treats its row alone and in a fixed order: see the row contract in kernels/ops.h. The order of a
// sum follows from the width of the vectors, so bits are those of one variant. In-place use is allowed where `out` is
// said to be possibly the input.
struct VectorKernels {
  // Set c = a b, and c += a b. Each element is one chain of fused multiply-adds over k, whatever the tile it is part
  // of.
  void (*multiply_strip)(const StripProduct& product);
  void (*add_strip_product)(const StripProduct& product);
  // Turns a row's scores of one group, (n_blocks, kRowTile), into exp2(score - maximum) and rescales what the row has
  // so far: its sum, and `out` (out_count, a multiple of 16).
  void (*soften)(float* scores, const Hull* hulls, int64_t n_blocks, Running& running, float* out, int64_t out_count);
  // Sets scores (kRowTile) = query (head_dim) times a block of keys (head_dim, kRowTile).
  void (*score_block)(const float* query, const float* keys, int64_t head_dim, float* scores);
  // Sets x[i] = 2^(x[i] - shift), (n) a multiple of 16; exactly 1 where x is shift, exactly 0 below 2^-126.
  void (*exp2_row)(float* x, int64_t n, float shift);
  // Returns the sum of n values, n a multiple of 16.
  float (*sum_row)(const float* x, int64_t n);
  // Returns the sum of exp(logits[i] - max) over n logits.
  float (*exp_sum)(const float* logits, int64_t n, float max);
  // Returns the sum of exp(reference[i] - max) * (reference[i] - logits[i]) over n logits.
  float (*weighted_difference)(const float* reference, const float* logits, int64_t n, float max);
  // Norms n elements: kernels/layer_kinds.h says what a shape means; out may be x.
  void (*norm_row)(const float* x, const float* weight, int64_t n, const kernels::NormShape& shape, float* out);
  // Applies rotate-half RoPE to one head in place; angles: head_dim / 2 cosines, then as many sines.
  void (*rotate_row)(float* x, const float* angles, int64_t head_dim);
  // Sets out = activation(gate) * up over n elements.
  void (*gate_row)(const float* gate, const float* up, int64_t n, kernels::Activation activation, float* out);
  // Sets x[i] = cap * tanh(x[i] / cap), cap > 0. Off by some 1e-7 of cap.
  void (*cap_row)(float* x, int64_t n, float cap);
  // Adds row += scale * values over n elements.
  void (*add_row)(const float* values, int64_t n, float scale, float* row);
};

}  // namespace winnow::cpu
