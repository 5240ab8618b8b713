// Which kernel computes which rows of an attention call. The choice follows from the call's own rows and window, never
// from the other calls, so that a row's result does not depend on what it is stacked with.

#include <algorithm>
#include <vector>

#include "kernels/cuda/attention_memory.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/flash_attention.cuh"
#include "kernels/cuda/merge_attention.h"

namespace winnow::cuda {

// Rows of a call that are of one kind: they see everything before them, or their window and all of the sinks, which do
// not overlap. Every row is of one of the two, and neighbours mostly of the same.
struct Piece {
  bool is_windowed = false;
  int64_t first_row = 0;
  int64_t end_row = 0;
  int64_t n_rows() const { return end_row - first_row; }
};

namespace {

// Sequences below this go to the own kernel, all calls in one launch: cuDNN needs a plan for every length and a launch
// for every call, which costs more than its faster kernel gains there.
constexpr int64_t kCudnnFromTokens = 2048;
// Short lanes that go through cuDNN together: powers of two up to this, so that the plans are few.
constexpr int64_t kMostStacked = 16;

bool sees_everything(const kernels::Window& window) { return window.keys >= kernels::kNoLimit; }

// A lane that is short beside its prefix: cheaper in two halves than with its keys copied behind the prefix.
bool is_short_lane(const kernels::AttentionCall& call) { return 4 * call.own.n_rows() <= call.own.first_row; }

// Keys that no row of the call sees are missing between the prefix and its own: only the own kernel steps over them.
bool has_gap(const kernels::AttentionCall& call) { return call.prefix.end_row() < call.own.first_row; }

// Keys [first_key, first_key + n_keys) of a call.
struct KeyRange {
  int64_t first_key = 0;
  int64_t n_keys = 0;
  AttentionShape::Mask mask = AttentionShape::Mask::kBottomRight;
  int64_t window = 0;  // 0: all
};

bool is_windowed_row(const kernels::Window& w, int64_t t) {
  return kernels::is_windowed(w, t) && t - w.keys + 1 > w.sinks;
}

// The largest first. Padding rows go with the last real one.
std::vector<Piece> pieces_of(const kernels::AttentionCall& call) {
  const int64_t end = call.end_row();
  std::vector<Piece> pieces;
  for (int64_t row = call.first_row; row < end;) {
    // Kinds change where the window begins to hide keys, and where rows begin or end to obey it.
    const bool is_windowed = is_windowed_row(call.window, std::min(row, call.n_tokens - 1));
    int64_t next = end;
    for (const int64_t border :
         {call.window.first_row, call.window.end_row, kernels::first_affected_row(call.window)}) {
      if (border > row && border < std::min(next, call.n_tokens)) next = border;
    }
    if (!pieces.empty() && pieces.back().is_windowed == is_windowed) {
      pieces.back().end_row = next;
    } else {
      pieces.push_back({is_windowed, row, next});
    }
    row = next;
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.n_rows() > b.n_rows(); });
  return pieces;
}

// Whole tiles around a piece.
Piece hull_of(const Piece& piece) {
  return {piece.is_windowed, piece.first_row / kRowTile * kRowTile,
          (piece.end_row + kRowTile - 1) / kRowTile * kRowTile};
}

// The one or two attentions, merged, that cuDNN computes a piece of whole tiles with.
std::vector<KeyRange> ranges_of(const Piece& piece, const kernels::Window& window) {
  using Mask = AttentionShape::Mask;
  if (!piece.is_windowed) return {{0, piece.end_row, Mask::kBottomRight, 0}};
  // From the first key of the first row's band on: fewer shapes, and no tiles to pass over.
  const int64_t first_key = std::max<int64_t>(0, piece.first_row - window.keys + 1) / kRowTile * kRowTile;
  std::vector<KeyRange> ranges = {{first_key, piece.end_row - first_key, Mask::kBottomRight, window.keys}};
  if (window.sinks > 0) ranges.push_back({0, window.sinks, Mask::kNone, 0});
  return ranges;
}

AttentionShape shape_of(int64_t n_queries, const KeyRange& range, const kernels::HeadShape& heads) {
  return {.n_queries = n_queries,
          .n_keys = range.n_keys,
          .n_heads = heads.n_heads,
          .n_kv_heads = heads.n_kv_heads,
          .head_dim = heads.head_dim,
          .mask = range.mask,
          .window = range.window};
}

// Whether b's rows lie behind a's and attend to the same keys of the same prefix.
bool stacks_on(const kernels::AttentionCall& a, const kernels::AttentionCall& b) {
  const auto lies_behind = [](kernels::ConstRows rows, kernels::ConstRows before) {
    return before.bytes().data() + before.bytes().size() == rows.data;
  };
  return a.prefix.kv.data == b.prefix.kv.data && a.sink_logits.data == b.sink_logits.data &&
         a.own.first_row == b.own.first_row && a.n_rows() == b.n_rows() && lies_behind(b.q, a.q) &&
         lies_behind(b.out, a.out);
}

}  // namespace

// Keys and values of rows [0, end of own) in one piece, for a call that has them in two.
kernels::KvSpan CudaBackend::join_keys(const kernels::AttentionCall& call, const kernels::HeadShape& heads) {
  const int64_t size = kv_bytes(call.own.end_row(), heads);
  attention_memory_->joined.reserve(*this, size, "joined keys and values");
  const kernels::KvSpan joined = kv_span(attention_memory_->joined.bytes(size), heads);
  const int64_t split = call.own.first_row;
  do_copy_async(call.prefix.kv.slice(0, split).bytes(), joined.slice(0, split).bytes());
  do_copy_async(call.own.kv.bytes(), joined.from(split).bytes());
  return joined;
}

// A piece of whole tiles over the keys of one buffer: q and out are its rows. Sink logits come after cuDNN's kernels.
void CudaBackend::run_piece(const Piece& piece, const PieceRows& rows, const kernels::AttentionCall& call,
                            const kernels::HeadShape& heads) {
  AttentionMemory& memory = *attention_memory_;
  const std::vector<KeyRange> ranges = ranges_of(piece, call.window);
  const int64_t lse_count = heads.n_heads * piece.n_rows();
  memory.lse.reserve(*this, 2 * lse_count * 4, "log-sum-exp");
  auto* lse = static_cast<float*>(memory.lse.data());
  const auto keys_of = [&](const KeyRange& range) { return rows.kv.from(range.first_key).data; };
  cudnn_->run(shape_of(piece.n_rows(), ranges[0], heads), {rows.q.data, keys_of(ranges[0]), rows.out.data, lse},
              heads.scale);
  if (ranges.size() == 1 && !call.sink_logits) return;
  const void* second = nullptr;
  if (ranges.size() > 1) {
    memory.second_out.reserve(*this, rows.out.size_bytes(), "half of an attention");
    second = memory.second_out.data();
    cudnn_->run(shape_of(piece.n_rows(), ranges[1], heads),
                {rows.q.data, keys_of(ranges[1]), memory.second_out.data(), lse + lse_count}, heads.scale);
  }
  merge_attention({.out = rows.out.data,
                   .other = second,
                   .lse = lse,
                   .other_lse = lse + lse_count,
                   .sink_logits = call.sink_logits.as<float>(),
                   .n_rows = piece.n_rows(),
                   .n_heads = heads.n_heads,
                   .head_dim = heads.head_dim},
                  stream_);
}

// Short lanes that see everything and lie one after another: all of their rows against the prefix in one call, each
// lane's own keys beside it, and a merge.
void CudaBackend::run_stacked(std::span<const kernels::AttentionCall> lanes, const kernels::HeadShape& heads) {
  AttentionMemory& memory = *attention_memory_;
  const kernels::AttentionCall& first = lanes.front();
  const auto n_lanes = static_cast<int64_t>(lanes.size());
  const int64_t n_rows = n_lanes * first.n_rows();
  kernels::Rows out = first.out;
  out.n_rows = n_rows;  // those of all lanes, which lie one after another
  const int64_t lse_count = heads.n_heads * n_rows;
  const int64_t split = first.own.first_row;
  memory.lse.reserve(*this, 2 * lse_count * 4, "log-sum-exp");
  memory.second_out.reserve(*this, out.size_bytes(), "half of an attention");
  kernels::Rows second_out = out;
  second_out.data = memory.second_out.data();
  auto* lse = static_cast<float*>(memory.lse.data());
  cudnn_->run(shape_of(n_rows, {0, split, AttentionShape::Mask::kNone, 0}, heads),
              {first.q.data, first.prefix.kv.data, out.data, lse}, heads.scale);

  // The own keys as a sequence of their own, which begins at the split.
  std::vector<kernels::AttentionCall> own;
  std::vector<LseRows> own_lse;
  for (int64_t i = 0; i < n_lanes; ++i) {
    kernels::AttentionCall call = lanes[static_cast<std::size_t>(i)];
    call.out = second_out.slice(i * first.n_rows(), first.n_rows());
    call.first_row -= split;
    call.n_tokens -= split;
    call.own.first_row = 0;
    call.prefix = {};
    call.sink_logits = {};  // they come with the merge, once
    own.push_back(call);
    own_lse.push_back({lse + lse_count + i * first.n_rows(), n_rows});
  }
  own_attention(own, own_lse, heads, stream_);
  merge_attention({.out = out.data,
                   .other = second_out.data,
                   .lse = lse,
                   .other_lse = lse + lse_count,
                   .sink_logits = first.sink_logits.as<float>(),
                   .n_rows = n_rows,
                   .n_heads = heads.n_heads,
                   .head_dim = heads.head_dim},
                  stream_);
}

void CudaBackend::run_short_lanes(std::span<const kernels::AttentionCall> lanes, const kernels::HeadShape& heads) {
  while (!lanes.empty()) {
    std::size_t n = 1;
    while (n < lanes.size() && stacks_on(lanes[n - 1], lanes[n])) ++n;
    while (n > 0) {
      auto block = static_cast<std::size_t>(kMostStacked);
      while (block > n) block /= 2;
      run_stacked(lanes.first(block), heads);
      lanes = lanes.subspan(block);
      n -= block;
    }
  }
}

// A call through cuDNN. It computes whole tiles: the largest piece writes them where they belong, also rows of its
// neighbours, which come after it and bring theirs by way of scratch memory.
void CudaBackend::run_pieces(const kernels::AttentionCall& call, const kernels::HeadShape& heads) {
  const kernels::KvSpan keys = call.own.first_row == 0 ? call.own.kv : join_keys(call, heads);
  bool is_first = true;
  for (const Piece& piece : pieces_of(call)) {
    const Piece hull = hull_of(piece);
    const kernels::ConstRows q = call.q.slice(hull.first_row - call.first_row, hull.n_rows());
    const kernels::Rows out = call.out.slice(hull.first_row - call.first_row, hull.n_rows());
    if (is_first || hull.n_rows() == piece.n_rows()) {
      run_piece(hull, {q, keys, out}, call, heads);
    } else {
      attention_memory_->tile_out.reserve(*this, out.size_bytes(), "rows of a shared tile");
      kernels::Rows scratch = out;
      scratch.data = attention_memory_->tile_out.data();
      run_piece(hull, {q, keys, scratch}, call, heads);
      const int64_t first = piece.first_row - hull.first_row;
      do_copy_async(scratch.slice(first, piece.n_rows()).bytes(), out.slice(first, piece.n_rows()).bytes());
    }
    is_first = false;
  }
}

CudaBackend::Path CudaBackend::path_of(const kernels::AttentionCall& call, const kernels::HeadShape& heads) const {
  if (!cudnn_) return Path::kOwn;
  // cuDNN would need a plan for every number of heads, and its results of the others' rows thrown away.
  if (call.kv_heads) return Path::kOwn;
  // Heads that are too wide for the own kernel: cuDNN for all that it can, also where the own one would be faster.
  if (heads.head_dim > kMaxHeadDim) return has_gap(call) ? Path::kOwn : Path::kPieces;
  if (options_.attention == CudaOptions::Attention::kAuto && call.n_tokens < kCudnnFromTokens) return Path::kOwn;
  if (has_gap(call)) return Path::kOwn;
  if (!is_short_lane(call)) return Path::kPieces;
  return sees_everything(call.window) ? Path::kStacked : Path::kOwn;
}

void CudaBackend::prepare_attention(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) {
  choose_attention(heads);
  if (is_hopper_) return;
  for (const kernels::AttentionCall& call : calls) {
    if (path_of(call, heads) == Path::kStacked) {
      for (int64_t n = 1; n <= kMostStacked; n *= 2) {
        cudnn_->prepare(shape_of(n * call.n_rows(), {0, call.own.first_row, AttentionShape::Mask::kNone, 0}, heads));
      }
    } else if (path_of(call, heads) == Path::kPieces) {
      for (const Piece& piece : pieces_of(call)) {
        const Piece hull = hull_of(piece);
        for (const KeyRange& range : ranges_of(hull, call.window)) {
          cudnn_->prepare(shape_of(hull.n_rows(), range, heads));
        }
      }
    }
  }
}

// Decided once, by the first call: a model's attention is computed by one library from its first row to its last.
void CudaBackend::choose_attention(const kernels::HeadShape& heads) {
  if (is_attention_chosen_) return;
  is_attention_chosen_ = true;
  is_hopper_ = choose_hopper();
  if (is_hopper_) return;
  if (options_.attention != CudaOptions::Attention::kBuiltin) {
    std::string reason = "its kernels do not cap scores, as this model does";
    if (heads.softcap == 0.F) cudnn_ = CudnnAttention::open(options_.device, stream_, reason);
    const AttentionShape probe = shape_of(kRowTile, {0, 2 * kRowTile, AttentionShape::Mask::kBottomRight, 0}, heads);
    if (cudnn_ && cudnn_->supports(probe, reason)) return;
    cudnn_.reset();
    if (options_.attention == CudaOptions::Attention::kCudnn) {
      fail(ExitCode::kUnavailable, "--attention cudnn: " + reason + "; use --attention own or auto");
    }
    why_not_cudnn_ = reason;
  }
  if (heads.head_dim > kMaxHeadDim) {
    fail(ExitCode::kUnavailable, "the own attention kernel takes head_dim up to " + std::to_string(kMaxHeadDim) +
                                     ", the model has " + std::to_string(heads.head_dim) + "; use --device cpu");
  }
}

std::string CudaBackend::attention_path(const kernels::HeadShape& heads) {
  choose_attention(heads);
  if (is_hopper_) return "cuda-hopper";
  if (!cudnn_) return "cuda-own";
  const std::string path = "cuda-cudnn-" + cudnn_->version();
  const bool is_auto = options_.attention == CudaOptions::Attention::kAuto;
  return is_auto ? path + "-own-below-" + std::to_string(kCudnnFromTokens) : path;
}

void CudaBackend::do_attention(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) {
  choose_attention(heads);
  if (is_hopper_) {
    run_hopper(calls, heads);
    return;
  }
  std::vector<kernels::AttentionCall> own;
  std::vector<kernels::AttentionCall> short_lanes;
  for (const kernels::AttentionCall& call : calls) {
    switch (path_of(call, heads)) {
      case Path::kOwn:
        own.push_back(call);
        break;
      case Path::kStacked:
        short_lanes.push_back(call);
        break;
      case Path::kPieces:
        run_pieces(call, heads);
        break;
    }
  }
  run_short_lanes(short_lanes, heads);
  if (!own.empty() && heads.head_dim > kMaxHeadDim) {
    fail(ExitCode::kUnavailable, "the own attention kernel, which these rows need, takes head_dim up to " +
                                     std::to_string(kMaxHeadDim) + ", the model has " + std::to_string(heads.head_dim) +
                                     "; use --device cpu");
  }
  own_attention(own, {}, heads, stream_);
}

}  // namespace winnow::cuda
