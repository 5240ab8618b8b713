// Attention of the CPU backend: online softmax over blocks of keys at absolute positions. A task is one tile of query
// rows of one head; tiles of keys that no row of it sees are skipped, and T x T is never stored.
//
// Row contract: a row's result must not depend on which key blocks its neighbours need. A block that is hidden from a
// row adds exactly nothing to it: its scores are -infinity, exp2 makes them exactly 0, and the running maximum, and so
// the rescaling by exactly 1, do not move.

#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Memory of one thread's task.
struct Scratch {
  float* q;       // (kRowTile, head_dim), scaled by scale * log2(e)
  float* scores;  // (kRowTile, kGroupKeys), then probabilities before normalisation
  float* out;     // (kRowTile, padded head_dim)
};

int64_t scratch_count(const kernels::HeadShape& heads) {
  return kRowTile * (padded_head_dim(heads.head_dim) * 2 + kGroupKeys);
}

struct Task {
  const VectorKernels* kernels;
  const kernels::AttentionCall* call;
  const kernels::HeadShape* heads;
  int64_t tile;  // of query rows, within the call
  int64_t head;
};

class TileAttention {
 public:
  TileAttention(const Task& task, const Scratch& scratch)
      : kernels_(*task.kernels),
        call_(*task.call),
        heads_(*task.heads),
        head_(task.head),
        first_row_(call_.first_row + task.tile * kRowTile),
        first_in_call_(task.tile * kRowTile),
        n_rows_(std::min(kRowTile, call_.n_tokens - first_row_)),
        value_stride_(padded_head_dim(heads_.head_dim)),
        scratch_(scratch) {}

  void run() {
    if (n_rows_ <= 0) {
      write_zeros();
      return;
    }
    load_queries();
    std::fill_n(scratch_.out, kRowTile * value_stride_, 0.0F);
    std::fill_n(running_, kRowTile, Running{});
    const Needed needed = needed_blocks();
    for (int64_t group = 0; group * kGroupBlocks <= needed.last; ++group) process_group(group, needed);
    write_result();
  }

 private:
  // Blocks [0, sink_end) and [band_begin, last] hold every key that a row of this tile sees.
  struct Needed {
    int64_t sink_end;
    int64_t band_begin;
    int64_t last;
    bool contains(int64_t block) const { return block < sink_end || (block >= band_begin && block <= last); }
  };

  Needed needed_blocks() const {
    int64_t band = first_row_ + n_rows_;
    bool any_obeys = false;
    for (int64_t r = 0; r < n_rows_; ++r) {
      band = std::min(band, kernels::window_start(call_.window, first_row_ + r));
      any_obeys = any_obeys || kernels::is_windowed(call_.window, first_row_ + r);
    }
    const int64_t sinks = any_obeys ? std::min(call_.window.sinks, first_row_ + n_rows_) : 0;
    return {(sinks + kRowTile - 1) / kRowTile, band / kRowTile, (first_row_ + n_rows_ - 1) / kRowTile};
  }

  const float* block(int64_t index) const {
    const int64_t row = index * kRowTile;
    const kernels::KvRows& rows = row < call_.own.first_row ? call_.prefix : call_.own;
    return kv_blocks(rows.kv) + (row - rows.first_row) / kRowTile * kv_block_count(heads_);
  }

  int64_t kv_head() const { return head_ / (heads_.n_heads / heads_.n_kv_heads); }
  const float* keys(int64_t index) const { return block(index) + kv_head() * heads_.head_dim * kRowTile; }
  const float* values(int64_t index) const {
    return block(index) + key_block_count(heads_) + kv_head() * kRowTile * value_stride_;
  }

  void load_queries() {
    const auto* q = call_.q.as<float>() + first_in_call_ * heads_.q_dim() + head_ * heads_.head_dim;
    const float factor = heads_.scale * kLog2E;
    for (int64_t r = 0; r < kRowTile; ++r) {
      for (int64_t d = 0; d < heads_.head_dim; ++d) {
        scratch_.q[r * heads_.head_dim + d] = r < n_rows_ ? q[r * heads_.q_dim() + d] * factor : 0.0F;
      }
    }
  }

  // What rows [row, row + kStripRows) of the tile see of a block.
  Hull hull_of(int64_t row, int64_t index) const {
    const int64_t first_key = index * kRowTile;
    Hull hull;
    for (int64_t r = row; r < row + kStripRows; ++r) {
      if (r >= n_rows_) {
        hull.whole = false;
        continue;
      }
      const int64_t t = first_row_ + r;
      const int64_t end = std::clamp<int64_t>(t + 1 - first_key, 0, kRowTile);
      const int64_t band = std::clamp<int64_t>(kernels::window_start(call_.window, t) - first_key, 0, kRowTile);
      const bool sees_sinks = call_.window.sinks > first_key;
      const int64_t begin = sees_sinks ? 0 : band;
      if (begin < end) {
        hull.begin = std::min(hull.begin, begin);
        hull.end = std::max(hull.end, end);
      }
      const bool sees_all = end == kRowTile && (band == 0 || call_.window.sinks >= first_key + band);
      hull.whole = hull.whole && sees_all;
    }
    hull.begin = std::min(hull.begin, hull.end) / 16 * 16;
    hull.end = (hull.end + 15) / 16 * 16;
    return hull;
  }

  // Scores are in units of log2(e), and so is the cap.
  void cap_scores(const Hull& hull, float* scores) const {
    if (heads_.softcap == 0.F || hull.begin >= hull.end) return;
    for (int64_t r = 0; r < kStripRows; ++r) {
      kernels_.cap_row(scores + r * kGroupKeys + hull.begin, hull.end - hull.begin, heads_.softcap * kLog2E);
    }
  }

  void hide_unseen(int64_t row, int64_t index, float* scores) const {
    const int64_t first_key = index * kRowTile;
    for (int64_t r = row; r < row + kStripRows; ++r) {
      const int64_t t = first_row_ + r;
      float* s = scores + (r - row) * kGroupKeys;
      for (int64_t j = 0; j < kRowTile; ++j) {
        if (r >= n_rows_ || !kernels::sees(call_.window, t, first_key + j)) s[j] = kHidden;
      }
    }
  }

  void process_group(int64_t group, const Needed& needed) {
    int64_t blocks[kGroupBlocks];
    int64_t n_blocks = 0;
    for (int64_t b = group * kGroupBlocks; b < (group + 1) * kGroupBlocks; ++b) {
      if (needed.contains(b)) blocks[n_blocks++] = b;
    }
    if (n_blocks == 0) return;
    for (int64_t row = 0; row < kRowTile; row += kStripRows) {
      Hull hulls[kGroupBlocks];
      float* scores = scratch_.scores + row * kGroupKeys;
      for (int64_t i = 0; i < n_blocks; ++i) {
        hulls[i] = hull_of(row, blocks[i]);
        const Hull& hull = hulls[i];
        kernels_.multiply_strip({.a = scratch_.q + row * heads_.head_dim,
                                 .lda = heads_.head_dim,
                                 .b = keys(blocks[i]) + hull.begin,
                                 .ldb = kRowTile,
                                 .c = scores + i * kRowTile + hull.begin,
                                 .ldc = kGroupKeys,
                                 .n_k = heads_.head_dim,
                                 .n_columns = hull.end - hull.begin});
        cap_scores(hull, scores + i * kRowTile);
        if (!hull.whole && hull.begin < hull.end) hide_unseen(row, blocks[i], scores + i * kRowTile);
      }
      for (int64_t r = row; r < row + kStripRows; ++r) {
        kernels_.soften(scratch_.scores + r * kGroupKeys, hulls, n_blocks, running_[r],
                        scratch_.out + r * value_stride_, value_stride_);
      }
      for (int64_t i = 0; i < n_blocks; ++i) {
        const Hull& hull = hulls[i];
        kernels_.add_strip_product({.a = scores + i * kRowTile + hull.begin,
                                    .lda = kGroupKeys,
                                    .b = values(blocks[i]) + hull.begin * value_stride_,
                                    .ldb = value_stride_,
                                    .c = scratch_.out + row * value_stride_,
                                    .ldc = value_stride_,
                                    .n_k = hull.end - hull.begin,
                                    .n_columns = value_stride_});
      }
    }
  }

  float* result_row(int64_t r) const {
    return call_.out.as<float>() + (first_in_call_ + r) * heads_.q_dim() + head_ * heads_.head_dim;
  }

  void write_result() const {
    const auto* sink_logits = call_.sink_logits.as<float>();
    for (int64_t r = 0; r < kRowTile; ++r) {
      const float inverse = r < n_rows_ ? inverse_denominator(running_[r], sink_logits, head_) : 0.0F;
      const float* out = scratch_.out + r * value_stride_;
      float* to = result_row(r);
      for (int64_t d = 0; d < heads_.head_dim; ++d) to[d] = r < n_rows_ ? out[d] * inverse : 0.0F;
    }
  }

  void write_zeros() const {
    for (int64_t r = 0; r < kRowTile; ++r) std::fill_n(result_row(r), heads_.head_dim, 0.0F);
  }

  const VectorKernels& kernels_;
  const kernels::AttentionCall& call_;
  const kernels::HeadShape& heads_;
  int64_t head_;
  int64_t first_row_;      // absolute, of this tile
  int64_t first_in_call_;  // the same row within the call
  int64_t n_rows_;         // that are real
  int64_t value_stride_;
  Scratch scratch_;
  Running running_[kRowTile];
};

}  // namespace

int64_t attention_bytes(const kernels::HeadShape& heads, int n_threads) {
  return n_threads * scratch_count(heads) * static_cast<int64_t>(sizeof(float));
}

void CpuBackend::do_attention(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) {
  std::vector<Task> tasks;
  for (const kernels::AttentionCall& call : calls) {
    const kernels::HeadRange range = call.query_heads(heads);
    for (int64_t tile = call.n_rows() / kRowTile - 1; tile >= 0; --tile) {  // the longest rows first
      for (int64_t head = range.begin; head < range.end; ++head) {
        tasks.push_back({&kernels_, &call, &heads, tile, head});
      }
    }
  }
  const auto memory = allocate(attention_bytes(heads, pool_.size()), "tiles of attention");
  pool_.run(static_cast<int64_t>(tasks.size()), [&](int64_t task, int thread) {
    float* q = static_cast<float*>(memory->data()) + thread * scratch_count(heads);
    float* out = q + kRowTile * padded_head_dim(heads.head_dim);
    float* scores = out + kRowTile * padded_head_dim(heads.head_dim);
    TileAttention(tasks[static_cast<std::size_t>(task)], Scratch{q, scores, out}).run();
  });
}

}  // namespace winnow::cpu
