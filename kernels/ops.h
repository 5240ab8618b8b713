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
#include "kernels/experts.h"
#include "kernels/kv_rounding.h"
#include "kernels/layer_kinds.h"
#include "kernels/packed_kv.h"
#include "kernels/tensor.h"
#include "kernels/window.h"

namespace winnow::kernels {

// A norm, or none when `weight` is empty.
struct Norm {
  Matrix weight;  // (cols)
  NormShape shape;

  explicit operator bool() const { return static_cast<bool>(weight); }
};

// Norm of q or k beside RoPE, or none: of each head by itself where the weight is (head_dim), of all heads of a row
// together where it is as long as they are.
struct HeadNorm {
  Norm norm;
  bool after_rope = false;
};

// Keys and values of rows [first_row, first_row + n_rows()) of one segment in one layer.
struct KvRows {
  KvSpan kv;
  int64_t first_row = 0;  // absolute, multiple of row_tile()
  int64_t n_rows() const { return kv.n_rows; }
  int64_t end_row() const { return first_row + kv.n_rows; }
};

// Rotary angles of the rows of a stack.
struct RowAngles {
  // (max_position, head_dim): the cosines of a position's head_dim / 2 frequencies, then their sines, float32, from
  // model/rope.h; attention scaling is already in it.
  Matrix cos_sin;
  std::span<const int32_t> positions;  // absolute, one a row, from Device::upload(); beyond the table: its last
  // Returns those of the rows from `row` on.
  RowAngles from(int64_t row) const { return {cos_sin, positions.subspan(static_cast<std::size_t>(row))}; }
};

// One attention call: query rows [first_row, first_row + n_rows()) of a sequence. Keys of rows before own.first_row
// come from `prefix` (the base's), the others from `own`; prefix may be empty when own.first_row is 0, and may end
// before own.first_row where no row of the call sees a key between the two.
struct AttentionCall {
  ConstRows q;            // (n_rows, q_dim), after RoPE; n_rows a multiple of row_tile()
  Rows out;               // (n_rows, q_dim)
  int64_t first_row = 0;  // absolute, multiple of row_tile()
  int64_t n_tokens = 0;   // rows of the sequence that are real: rows beyond are padding
  KvRows prefix;
  KvRows own;
  Window window;
  Matrix sink_logits{};  // (n_heads), float32, of WeightUse::kTable; empty: the model has none
  // Key heads that are computed, with the query heads that share them: what `out` has of other heads stays. None: all.
  std::optional<HeadRange> kv_heads{};
  int64_t n_rows() const { return q.n_rows; }
  int64_t end_row() const { return first_row + q.n_rows; }
  // Returns the query heads that are computed.
  HeadRange query_heads(const HeadShape& heads) const {
    return kv_heads ? heads.query_heads(*kv_heads) : HeadRange{0, heads.n_heads};
  }
};

// Rows of keys and values to be moved: rows [from_row, from_row + n_rows) of `from`, counted from its first, to row
// to_row of `to`. Any row, no tiles.
struct KvCopy {
  KvSpan from;
  int64_t from_row = 0;
  KvSpan to;
  int64_t to_row = 0;
  int64_t n_rows = 0;
};

// Rows of keys and values and their place in a packed cache: rows [kv_row, kv_row + n_rows) of `kv`, counted from its
// first, and as many of `packed` from packed_row on. Any row, no tiles.
struct KvPacking {
  KvSpan kv;
  int64_t kv_row = 0;
  PackedKv packed;
  int64_t packed_row = 0;
  int64_t n_rows = 0;
};

// Where a cache keeps the keys and values of a sequence's rows: a row of the first n_sinks in the slot of its number,
// row t after them in slot n_sinks + (t - n_sinks) mod n_ring, where it replaces the row n_ring before it. A cache that
// forgets nothing has as many slots as rows.
struct KvCache {
  KvSpan kv;  // n_sinks + n_ring rows or more
  int64_t n_sinks = 0;
  int64_t n_ring = 1;
  // Returns the slot of a row.
  WINNOW_HOST_DEVICE int64_t slot(int64_t row) const {
    return row < n_sinks ? row : n_sinks + (row - n_sinks) % n_ring;
  }
};

// Attention of one query row over a cache that holds the row itself and every row that it sees.
struct DecodeCall {
  ConstRows q;      // (1, q_dim), after RoPE
  Rows out;         // (1, q_dim)
  int64_t row = 0;  // absolute
  KvCache cache;
  Window window;
  Matrix sink_logits{};  // as an AttentionCall's
};

// Keys of a sequence: [0, sinks) and [begin, end), which do not overlap; either may be empty.
struct KeySet {
  int32_t sinks = 0;
  int32_t begin = 0;
  int32_t end = 0;
};
inline constexpr std::size_t kMaxKeySets = 4;

// Query rows of one sequence, and for each of them sets of keys whose share of its softmax is wanted, equally many a
// row. Causality is the sets' own matter.
struct LseCall {
  ConstRows q;                   // (n_rows, q_dim), after RoPE
  KvRows keys;                   // from row 0 on
  std::span<const KeySet> sets;  // (n_rows, n_sets)
  std::span<double> lse;         // (n_rows, n_sets, n_heads), memory of allocate_host()
  int64_t n_rows() const { return q.n_rows; }
  // Returns the sets of a row, 1 to kMaxKeySets; 0 where there are no rows.
  int64_t n_sets() const { return q.n_rows == 0 ? 0 : static_cast<int64_t>(sets.size()) / q.n_rows; }
};

// Final hidden states that rows are compared with, and which of them: a row with the row at its own place in another
// tile, as of the same position of another residual stream.
struct ReferenceRows {
  ConstRows x{};                   // (rows, hidden), rows a multiple of row_tile()
  std::span<const int32_t> tiles;  // one a tile of the rows: index of the tile of x, or -1 for none
};

// Scores of answer rows, in the host's memory, one entry a row. What is empty is not wanted.
struct TokenScores {
  std::span<double> nll_nats;    // -log p(target), natural log, >= 0
  std::span<uint8_t> is_argmax;  // 1 iff the target is the most likely token; ties go to the lower token id
  // KL(p_reference || p) over the whole vocabulary, natural log, >= 0; exactly 0 for a row that equals its reference.
  // Rows without one are left alone. Off by the rounding of float32 sums: some 1e-7.
  std::span<double> kl_nats{};
  ReferenceRows reference{};
  std::span<int32_t> argmax{};  // the most likely token itself; of no meaning where the NLL is not finite
};

// Each operation checks the shapes that it is given, here and for all devices, and throws Error(kInternal) where two of
// them do not fit; a backend checks the types of elements when it takes them out of a view.
class Ops {
 public:
  virtual ~Ops() = default;

  // Returns the device in whose memory these operations work.
  virtual Device& device() = 0;
  virtual const Device& device() const = 0;

  // Copies residual rows. `from` and `to` have one shape and do not overlap.
  void copy_rows(ConstRows from, Rows to);
  // Copies bytes between memory of the backend and memory of allocate_host(), either way, in the order of the
  // operations: the host's side may be looked at after synchronize().
  void copy_async(std::span<const std::byte> from, std::span<std::byte> to);
  // Sets residual rows out[i, :] = scale * table[tokens[i], :]; 0 where tokens[i] is -1. tokens: one a row, from
  // upload().
  void embed(const Matrix& table, std::span<const int32_t> tokens, float scale, Rows out);
  // Sets out = norm(x), or x in the type of activations where there is no norm; x: residual rows, out: activations,
  // both (n_rows, cols).
  void norm(ConstRows x, const Norm& norm, Rows out);
  // Adds scale * norm(delta) to residual rows, or scale * delta where there is no norm; both (n_rows, cols).
  void add(ConstRows delta, const Norm& norm, float scale, Rows residual);
  // Sets out = x W^T + bias (bias may be empty), or residual rows out += scale * (x W^T + bias); x (n_rows, W.cols),
  // out (n_rows, W.rows).
  void linear(ConstRows x, const Matrix& weight, const Matrix& bias, Rows out, bool accumulate, float scale = 1.F);
  // Applies RoPE (rotate-half) and the optional norm, in the order that `norm` says, in place to q (n_rows, q_dim).
  void rope(Rows q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles);
  // Does the same for keys, then stores keys and values of consecutive rows at the beginning of `to`: kv (n_rows,
  // 2 * kv_dim), keys first, is overwritten.
  void store_kv(Rows kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, KvSpan to);
  // Tells that calls of these shapes will come: what they need may be made ready beside other work. Memory is not
  // looked at.
  virtual void prepare_attention(std::span<const AttentionCall> calls, const HeadShape& heads) = 0;
  // Computes softmax(q k^T * scale) v over the keys that window.h says each row sees. A head's sink logit is one more
  // term of the softmax's denominator, exp(sink logit), in every row; no value belongs to it. Calls on some of the
  // heads each give, together, what one call on all of them gives: on a CPU, and with one kernel of a GPU, bit for bit.
  void attention(std::span<const AttentionCall> calls, const HeadShape& heads);
  // Moves rows of keys and values. Ranges that are written overlap none that is read or written.
  void copy_kv(std::span<const KvCopy> copies, const HeadShape& heads);
  // Moves rows as copy_kv() does, each key and value rounded as a cache of that type would give it back
  // (kernels/kv_rounding.h), in float32 and then to the type of the rows. The two ranges of a copy may be the same.
  void round_kv(std::span<const KvCopy> copies, const KvRounding& rounding, const HeadShape& heads);
  // Rounds rows of keys and values to codes, and gives back what codes stand for: what round_kv() leaves of the rows
  // that were packed, bit for bit. rounding: of the type of all packed rows, which is not kStored; head_dim even.
  // Ranges that are written overlap none that is read or written.
  void pack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads);
  void unpack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads);
  // Computes attention() of single rows, each over a cache of its own. A row's result follows from its own call.
  void decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads);
  // Computes the log of the sum over a set's keys of exp(q k^T * scale), natural log; -infinity for an empty set. So a
  // set's weight in the softmax over another one is exp of the difference. Sink logits are not in it. The result may be
  // looked at after synchronize().
  void attention_lse(const LseCall& call, const HeadShape& heads);
  // Computes the angles between residual rows of one place, divided by pi, in float64; a and b (n_rows, cols), angles
  // (n_rows) in memory of allocate_host(), which may be looked at after synchronize(). A row of zeros is taken as
  // orthogonal to all others, and as turned by nothing from another one of zeros.
  void row_angles(ConstRows a, ConstRows b, std::span<double> angles);
  // Sets out = activation(gate) * up; gate_up (n_rows, 2 * ffn), gate first; out (n_rows, ffn).
  void gate(ConstRows gate_up, Activation activation, Rows out);
  // Sets out[i] to the sum over the experts that the router chooses for x[i] of weight * expert(x[i]), an expert being
  // down gate(gate_up x); x and out activations (n_rows, hidden). Of experts that are equally good the lower is chosen.
  void experts(ConstRows x, const Router& router, const Experts& experts, Activation activation, Rows out);
  // Scores rows of the final hidden state (after the last norm) against their targets (n_rows; -1: skip the row); `out`
  // says which scores. Logits are never stored for the whole vocabulary. Waits for the result.
  void token_nll(ConstRows x, const Matrix& head, const LogitShape& logits, std::span<const int32_t> targets,
                 const TokenScores& out);

 private:
  // What a device does for the operation of the name, with shapes that fit.
  virtual void do_copy_rows(ConstRows from, Rows to) = 0;
  virtual void do_copy_async(std::span<const std::byte> from, std::span<std::byte> to) = 0;
  virtual void do_embed(const Matrix& table, std::span<const int32_t> tokens, float scale, Rows out) = 0;
  virtual void do_norm(ConstRows x, const Norm& norm, Rows out) = 0;
  virtual void do_add(ConstRows delta, const Norm& norm, float scale, Rows residual) = 0;
  virtual void do_linear(ConstRows x, const Matrix& weight, const Matrix& bias, Rows out, bool accumulate,
                         float scale) = 0;
  virtual void do_rope(Rows q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles) = 0;
  virtual void do_store_kv(Rows kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles,
                           KvSpan to) = 0;
  virtual void do_attention(std::span<const AttentionCall> calls, const HeadShape& heads) = 0;
  virtual void do_copy_kv(std::span<const KvCopy> copies, const HeadShape& heads) = 0;
  virtual void do_round_kv(std::span<const KvCopy> copies, const KvRounding& rounding, const HeadShape& heads) = 0;
  virtual void do_pack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) = 0;
  virtual void do_unpack_kv(std::span<const KvPacking> rows, const KvRounding& rounding, const HeadShape& heads) = 0;
  virtual void do_decode_attention(std::span<const DecodeCall> calls, const HeadShape& heads) = 0;
  virtual void do_attention_lse(const LseCall& call, const HeadShape& heads) = 0;
  virtual void do_row_angles(ConstRows a, ConstRows b, std::span<double> angles) = 0;
  virtual void do_gate(ConstRows gate_up, Activation activation, Rows out) = 0;
  virtual void do_experts(ConstRows x, const Router& router, const Experts& experts, Activation activation,
                          Rows out) = 0;
  virtual void do_token_nll(ConstRows x, const Matrix& head, const LogitShape& logits, std::span<const int32_t> targets,
                            const TokenScores& out) = 0;
};

}  // namespace winnow::kernels
