// The operations that a decoder layer needs, on one device. The layer code drives this class and does not know which
// device it has.
//
// Conventions
//   - A "stack" holds the rows of one or more segments (residual streams of sequences), one after another. Every
//     segment begins at an absolute row that is a multiple of row_tile() and is padded to a multiple of it, so a
//     backend may cut the stack into tiles of row_tile() rows without knowing the segments.
//   - Row contract: the result of a row depends on that row's inputs and absolute position only, never on the other
//     rows of the call, their number, its place in the stack, or the number of threads: bit for bit.
//   - Padding rows hold finite values that nobody reads.
//   - "Residual rows" have residual_dtype(), all other activations activation_dtype().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/tensor.h"
#include "kernels/window.h"

namespace winnow::kernels {

// Per-head RMS norm of q or k before RoPE (Qwen3), or none when `weight` is empty.
struct HeadNorm {
  Matrix weight;  // (head_dim)
  float eps = 0.F;
};

// Keys and values of rows [first_row, first_row + n_rows) of one segment in one layer. The layout inside is the
// backend's own, only store_kv writes it and only attention reads it; but the rows of a stack lie one after another, so
// those of a segment begin kv_bytes(rows before it) after the first.
struct KvRows {
  void* data = nullptr;
  int64_t first_row = 0;  // absolute, multiple of row_tile()
  int64_t n_rows = 0;     // multiple of row_tile()
};

// Rotary angles of the rows of a stack.
struct RowAngles {
  // (max_position, head_dim): the cosines of a position's head_dim / 2 frequencies, then their sines, float32, from
  // model/rope.h; attention scaling is already in it.
  Matrix cos_sin;
  const int32_t* positions = nullptr;  // absolute, one a row, from Device::upload(); beyond the table: its last
  RowAngles from(int64_t row) const { return {cos_sin, positions + row}; }
};

// One attention call: query rows [first_row, first_row + n_rows) of a sequence. Keys of rows before own.first_row
// come from `prefix` (the base's), the others from `own`; prefix may be empty when own.first_row is 0, and may end
// before own.first_row where no row of the call sees a key between the two.
struct AttentionCall {
  const void* q = nullptr;  // (n_rows, n_heads, head_dim), after RoPE
  void* out = nullptr;      // (n_rows, n_heads, head_dim)
  int64_t first_row = 0;    // absolute, multiple of row_tile()
  int64_t n_rows = 0;       // multiple of row_tile()
  int64_t n_tokens = 0;     // rows of the sequence that are real: rows beyond are padding
  KvRows prefix;
  KvRows own;
  Window window;
};

// Rows of keys and values to be moved between two memories that have the layout of KvRows: rows
// [from_row, from_row + n_rows) of `from`, counted from its first, to row to_row of `to`. Any row, no tiles.
struct KvCopy {
  const void* from = nullptr;
  int64_t from_row = 0;
  void* to = nullptr;
  int64_t to_row = 0;
  int64_t n_rows = 0;
};

// Where a cache keeps the keys and values of a sequence's rows: a row of the first n_sinks in the slot of its number,
// row t after them in slot n_sinks + (t - n_sinks) mod n_ring, where it replaces the row n_ring before it. A cache that
// forgets nothing has as many slots as rows.
struct KvCache {
  void* data = nullptr;  // memory of n_sinks + n_ring rows, in the layout of KvRows
  int64_t n_sinks = 0;
  int64_t n_ring = 1;
  WINNOW_HOST_DEVICE int64_t slot(int64_t row) const {
    return row < n_sinks ? row : n_sinks + (row - n_sinks) % n_ring;
  }
};

// Attention of one query row over a cache that holds the row itself and every row that it sees.
struct DecodeCall {
  const void* q = nullptr;  // (n_heads, head_dim), after RoPE
  void* out = nullptr;      // (n_heads, head_dim)
  int64_t row = 0;          // absolute
  KvCache cache;
  Window window;
};

// Keys of a sequence: [0, sinks) and [begin, end), which do not overlap; either may be empty.
struct KeySet {
  int32_t sinks = 0;
  int32_t begin = 0;
  int32_t end = 0;
};
inline constexpr std::size_t kMaxKeySets = 4;

// Query rows of one sequence, and for each of them sets of keys whose share of its softmax is wanted. Causality is the
// sets' own matter.
struct LseCall {
  const void* q = nullptr;  // (n_rows, n_heads, head_dim), after RoPE
  KvRows keys;              // from row 0 on
  int64_t n_rows = 0;
  int64_t n_sets = 0;            // 1 to kMaxKeySets
  std::span<const KeySet> sets;  // (n_rows, n_sets)
  std::span<double> lse;         // (n_rows, n_sets, n_heads), host
};

// Final hidden states that rows are compared with, and which of them: a row with the row at its own place in another
// tile, as of the same position of another residual stream.
struct ReferenceRows {
  const void* x = nullptr;         // (rows, hidden), rows a multiple of row_tile()
  std::span<const int32_t> tiles;  // one a tile of the rows: index of the tile of x, or -1 for none
};

// Scores of answer rows, one entry a row.
struct TokenScores {
  double* nll_nats = nullptr;    // -log p(target), natural log, >= 0
  uint8_t* is_argmax = nullptr;  // 1 iff the target is the most likely token; ties go to the lower token id
  // KL(p_reference || p) over the whole vocabulary, natural log, >= 0; exactly 0 for a row that equals its reference.
  // Rows without one are left alone. Null: not wanted. Off by the rounding of float32 sums: some 1e-7.
  double* kl_nats = nullptr;
  ReferenceRows reference{};
  int32_t* argmax = nullptr;  // the most likely token itself, unless null; of no meaning where the NLL is not finite
};

class Ops {
 public:
  virtual ~Ops() = default;

  // Where all memory of these operations lies.
  virtual Device& device() = 0;
  virtual const Device& device() const = 0;

  // to[i] = from[i] for n_rows residual rows of `cols` values; the ranges must not overlap.
  virtual void copy_rows(const void* from, void* to, int64_t n_rows, int64_t cols) = 0;
  // Copies bytes between memory of the backend and memory of allocate_host(), either way, in the order of the
  // operations: the host's side may be looked at after synchronize().
  virtual void copy_async(const void* from, void* to, int64_t size_bytes) = 0;
  // Residual rows out[i, :] = table[tokens[i], :]; 0 where tokens[i] is -1. tokens: (n_rows), from upload().
  virtual void embed(const Matrix& table, const int32_t* tokens, void* out, int64_t n_rows) = 0;
  // out = x / sqrt(mean(x^2) + eps) * weight; x: residual rows, out: activations, both (n_rows, weight.rows).
  virtual void rms_norm(const void* x, const Matrix& weight, float eps, void* out, int64_t n_rows) = 0;
  // out = x W^T + bias (bias may be empty), or residual rows out += x W^T + bias; x (n_rows, W.cols), out
  // (n_rows, W.rows).
  virtual void linear(const void* x, const Matrix& weight, const Matrix& bias, void* out, int64_t n_rows,
                      bool accumulate) = 0;
  // Optional per-head norm, then RoPE (rotate-half) in place on q (n_rows, n_heads, head_dim).
  virtual void rope(void* q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, int64_t n_rows) = 0;
  // The same for keys, then stores keys and values of consecutive rows at `to`: kv (n_rows, 2 * kv_dim), keys first, is
  // overwritten.
  virtual void store_kv(void* kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, int64_t n_rows,
                        void* to) = 0;
  // Calls of these shapes will come: what they need may be made ready beside other work. Pointers are not looked at.
  virtual void prepare_attention(std::span<const AttentionCall> calls, const HeadShape& heads) = 0;
  // softmax(q k^T * scale) v over the keys that window.h says each row sees.
  virtual void attention(std::span<const AttentionCall> calls, const HeadShape& heads) = 0;
  // Moves rows of keys and values. Ranges that are written overlap none that is read or written.
  virtual void copy_kv(std::span<const KvCopy> copies, const HeadShape& heads) = 0;
  // attention() of single rows, each over a cache of its own. A row's result follows from its own call.
  virtual void decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads) = 0;
  // log of the sum over a set's keys of exp(q k^T * scale), natural log; -infinity for an empty set. So a set's weight
  // in the softmax over another one is exp of the difference. Waits for the result.
  virtual void attention_lse(const LseCall& call, const HeadShape& heads) = 0;
  // out = silu(gate) * up; gate_up (n_rows, 2 * ffn), gate first; out (n_rows, ffn).
  virtual void swiglu(const void* gate_up, void* out, int64_t n_rows, int64_t ffn) = 0;
  // Scores of n_rows rows of the final hidden state (after the last norm) against targets (n_rows; -1: skip the row);
  // `out` says which scores.
  // Logits are never stored for the whole vocabulary.
  virtual void token_nll(const void* x, const Matrix& head, std::span<const int32_t> targets, int64_t n_rows,
                         const TokenScores& out) = 0;
};

}  // namespace winnow::kernels
