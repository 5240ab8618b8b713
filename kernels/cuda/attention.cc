// Which kernel computes which rows of an attention call. The choice follows from the call's own rows and window, never
// from the other calls, so that a row's result does not depend on what it is stacked with.

#include <algorithm>
#include <vector>

#include "kernels/cuda/attention_memory.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/own_attention.cuh"

namespace winnow::cuda {

namespace {

// Rows of a call that are computed in the same way. All bounds are multiples of kRowTile.
struct Piece {
  enum class Kind {
    kFull,    // every row sees all keys up to itself
    kWindow,  // every row sees its window and all of the sinks, and these do not overlap
    kMixed,   // anything else: a tile where a border runs through, done by the own kernel
  };
  Kind kind;
  int64_t first_row;
  int64_t n_rows;
};

Piece::Kind kind_of(const Window& w, int64_t first, int64_t last) {
  const bool none_obeys = last < w.first_row || first >= w.end_row;
  if (none_obeys || last < w.keys || last - w.keys < w.sinks) return Piece::Kind::kFull;
  const bool all_obey = obeys(w, first) && obeys(w, last);
  return all_obey && (w.sinks == 0 || first - w.keys + 1 >= w.sinks) ? Piece::Kind::kWindow : Piece::Kind::kMixed;
}

std::vector<Piece> pieces_of(const AttentionCall& call) {
  std::vector<Piece> pieces;
  for (int64_t row = call.first_row; row < call.first_row + call.n_rows; row += kRowTile) {
    const int64_t last = std::min(row + kRowTile, std::max(call.n_tokens, row + 1)) - 1;
    const Piece::Kind kind = kind_of(call.window, row, last);
    if (!pieces.empty() && pieces.back().kind == kind) {
      pieces.back().n_rows += kRowTile;
    } else {
      pieces.push_back({kind, row, kRowTile});
    }
  }
  return pieces;
}

// The part of a call that is a piece.
AttentionCall part_of(const AttentionCall& call, const Piece& piece, int64_t q_dim) {
  AttentionCall part = call;
  const int64_t offset = (piece.first_row - call.first_row) * q_dim * 2;
  part.q = static_cast<const std::byte*>(call.q) + offset;
  part.out = static_cast<std::byte*>(call.out) + offset;
  part.first_row = piece.first_row;
  part.n_rows = piece.n_rows;
  return part;
}

const std::byte* key_rows(const KvRows& rows, int64_t row, const HeadShape& heads) {
  return static_cast<const std::byte*>(rows.data) + (row - rows.first_row) * heads.kv_dim() * 2;
}
const std::byte* value_rows(const KvRows& rows, int64_t row, const HeadShape& heads) {
  return key_rows(rows, row, heads) + rows.n_rows * heads.kv_dim() * 2;
}

}  // namespace

// Keys and values of rows [0, end of own) in one piece, for a call that has them in two.
KvRows CudaBackend::join_keys(const AttentionCall& call, const HeadShape& heads) {
  const int64_t n_rows = call.own.first_row + call.own.n_rows;
  attention_memory_->joined.reserve(*this, kv_bytes(n_rows, heads), "joined keys and values");
  const KvRows joined{attention_memory_->joined.data(), 0, n_rows};
  const auto copy_rows = [&](const std::byte* from, const std::byte* to, int64_t n) {
    WINNOW_CHECK(cudaMemcpyAsync(const_cast<std::byte*>(to), from, static_cast<std::size_t>(n * heads.kv_dim() * 2),
                                 cudaMemcpyDeviceToDevice, stream_));
  };
  const int64_t split = call.own.first_row;
  copy_rows(key_rows(call.prefix, 0, heads), key_rows(joined, 0, heads), split);
  copy_rows(value_rows(call.prefix, 0, heads), value_rows(joined, 0, heads), split);
  copy_rows(key_rows(call.own, split, heads), key_rows(joined, split, heads), call.own.n_rows);
  copy_rows(value_rows(call.own, split, heads), value_rows(joined, split, heads), call.own.n_rows);
  return joined;
}

// Rows against keys [first_key, first_key + n_keys) of one buffer; the diagonal is at the bottom right.
void CudaBackend::run_cudnn(const AttentionCall& part, const KvRows& keys, const KeyRange& range, void* out, void* lse,
                            const HeadShape& heads) {
  const AttentionShape shape{.n_queries = part.n_rows,
                             .n_keys = range.n_keys,
                             .n_heads = heads.n_heads,
                             .n_kv_heads = heads.n_kv_heads,
                             .head_dim = heads.head_dim,
                             .mask = range.masked ? AttentionShape::Mask::kBottomRight : AttentionShape::Mask::kNone,
                             .window = range.window};
  attention_memory_->lse.reserve(*this, 2 * heads.n_heads * part.n_rows * 4, "log-sum-exp");
  cudnn_->run(shape,
              {.q = part.q,
               .k = key_rows(keys, range.first_key, heads),
               .v = value_rows(keys, range.first_key, heads),
               .out = out,
               .lse = lse != nullptr ? lse : attention_memory_->lse.data()},
              heads.scale);
}

// A part in two halves over disjoint keys, merged by their log-sum-exp.
void CudaBackend::run_merged(const AttentionCall& part, const KeyHalf& first, const KeyHalf& second,
                             const HeadShape& heads) {
  AttentionMemory& memory = *attention_memory_;
  const int64_t lse_bytes = heads.n_heads * part.n_rows * 4;
  memory.lse.reserve(*this, 2 * lse_bytes, "log-sum-exp");
  memory.second_out.reserve(*this, part.n_rows * heads.q_dim() * 2, "half of an attention");
  auto* lse = static_cast<std::byte*>(memory.lse.data());
  run_cudnn(part, first.keys, first.range, part.out, lse, heads);
  run_cudnn(part, second.keys, second.range, memory.second_out.data(), lse + lse_bytes, heads);
  merge_attention({.out = part.out,
                   .other = memory.second_out.data(),
                   .lse = reinterpret_cast<const float*>(lse),
                   .other_lse = reinterpret_cast<const float*>(lse + lse_bytes),
                   .n_rows = part.n_rows,
                   .n_heads = heads.n_heads,
                   .head_dim = heads.head_dim},
                  stream_);
}

void CudaBackend::attend(const AttentionCall& call, const HeadShape& heads) {
  const bool is_split = call.own.first_row > 0;
  // A lane that is short beside its prefix: cheaper in two halves than copied together.
  const bool is_short = is_split && 4 * call.own.n_rows <= call.own.first_row;
  KvRows keys = call.own;
  bool is_joined = !is_split;
  for (const Piece& piece : pieces_of(call)) {
    const AttentionCall part = part_of(call, piece, heads.q_dim());
    const int64_t end = piece.first_row + piece.n_rows;
    const bool is_full = piece.kind == Piece::Kind::kFull;
    if (piece.kind == Piece::Kind::kMixed || (is_short && !is_full)) {
      own_attention({&part, 1}, {}, heads, stream_);
      continue;
    }
    if (is_short) {
      const int64_t split = call.own.first_row;
      run_merged(part, {call.prefix, {0, split, false, 0}}, {call.own, {split, end - split, true, 0}}, heads);
      continue;
    }
    if (!is_joined) {
      keys = join_keys(call, heads);
      is_joined = true;
    }
    if (is_full) {
      run_cudnn(part, keys, {0, end, true, 0}, part.out, nullptr, heads);
    } else if (call.window.sinks == 0) {
      run_cudnn(part, keys, {0, end, true, call.window.keys}, part.out, nullptr, heads);
    } else {
      run_merged(part, {keys, {0, end, true, call.window.keys}}, {keys, {0, call.window.sinks, false, 0}}, heads);
    }
  }
}

// Decided once, by the first call: a model's attention is computed by one library from its first row to its last.
void CudaBackend::choose_attention(const HeadShape& heads) {
  if (is_attention_chosen_) return;
  is_attention_chosen_ = true;
  if (options_.attention != CudaOptions::Attention::kOwn) {
    cudnn_ = std::make_unique<CudnnAttention>(stream_);
    const AttentionShape probe{.n_queries = kRowTile,
                               .n_keys = 2 * kRowTile,
                               .n_heads = heads.n_heads,
                               .n_kv_heads = heads.n_kv_heads,
                               .head_dim = heads.head_dim,
                               .mask = AttentionShape::Mask::kBottomRight,
                               .window = 0};
    if (cudnn_->supports(probe)) return;
    if (options_.attention == CudaOptions::Attention::kCudnn) fail(ExitCode::kUnavailable, cudnn_->reason());
    cudnn_.reset();
  }
  if (heads.head_dim > kMaxHeadDim) {
    fail(ExitCode::kUnavailable, "the own attention kernel takes head_dim up to " + std::to_string(kMaxHeadDim) +
                                     ", the model has " + std::to_string(heads.head_dim) + "; use --device cpu");
  }
}

void CudaBackend::attention(std::span<const AttentionCall> calls, const HeadShape& heads) {
  choose_attention(heads);
  if (cudnn_ == nullptr) {
    own_attention(calls, {}, heads, stream_);
    return;
  }
  for (const AttentionCall& call : calls) attend(call, heads);
}

}  // namespace winnow::cuda
