// Attention of single rows over their caches. A task is one head of keys with all the heads of queries that share it.
// Key blocks are those of the absolute positions, gathered from the cache where it does not keep them so: the order of
// the sums is that of attention.cc, and so are the bits.

#include <algorithm>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/tile.h"

namespace winnow::cpu {

namespace {

using kernels::round_up;

// Memory of one thread's task, floats.
struct ScratchShape {
  int64_t queries;  // (strips of the heads of a group, head_dim)
  int64_t scores;   // (strips, kGroupKeys)
  int64_t out;      // (strips, padded head_dim)
  int64_t keys;     // (head_dim, kRowTile) of kGroupBlocks blocks
  int64_t values;   // (kRowTile, padded head_dim) of kGroupBlocks blocks
  explicit ScratchShape(const kernels::HeadShape& heads) {
    const int64_t rows = round_up(heads.n_heads / heads.n_kv_heads, kStripRows);
    queries = rows * heads.head_dim;
    scores = rows * kGroupKeys;
    out = rows * padded_head_dim(heads.head_dim);
    keys = kGroupBlocks * heads.head_dim * kRowTile;
    values = kGroupBlocks * kRowTile * padded_head_dim(heads.head_dim);
  }
  // Every part begins at a whole vector.
  int64_t total() const {
    return round_up(queries, 16) + round_up(scores, 16) + round_up(out, 16) + round_up(keys, 16) + values;
  }
};

class RowAttention {
 public:
  RowAttention(const VectorKernels& kernels, const kernels::DecodeCall& call, const kernels::HeadShape& heads,
               int64_t kv_head, float* scratch)
      : kernels_(kernels), call_(call), heads_(heads), kv_head_(kv_head), n_queries_(heads.n_heads / heads.n_kv_heads) {
    const ScratchShape shape(heads);
    queries_ = scratch;
    scores_ = queries_ + round_up(shape.queries, 16);
    out_ = scores_ + round_up(shape.scores, 16);
    keys_ = out_ + round_up(shape.out, 16);
    values_ = keys_ + round_up(shape.keys, 16);
    std::fill_n(out_, shape.out, 0.0F);
    running_.assign(static_cast<std::size_t>(round_up(n_queries_, kStripRows)), Running{});
  }

  void run() {
    load_queries();
    const kernels::Window& window = call_.window;
    const int64_t band = kernels::window_start(window, call_.row);
    const int64_t n_sinks = kernels::is_windowed(window, call_.row) ? std::min(window.sinks, call_.row + 1) : 0;
    const int64_t sink_end = (n_sinks + kRowTile - 1) / kRowTile;
    const int64_t last = call_.row / kRowTile;
    for (int64_t group = 0; group * kGroupBlocks <= last; ++group) {
      int64_t blocks[kGroupBlocks];
      int64_t n_blocks = 0;
      for (int64_t b = group * kGroupBlocks; b < (group + 1) * kGroupBlocks; ++b) {
        if (b < sink_end || (b >= band / kRowTile && b <= last)) blocks[n_blocks++] = b;
      }
      if (n_blocks > 0) process_group(blocks, n_blocks);
    }
    write_result();
  }

 private:
  struct Block {
    const float* keys;    // (head_dim, kRowTile)
    const float* values;  // (kRowTile, padded head_dim)
  };

  int64_t stride() const { return padded_head_dim(heads_.head_dim); }

  void load_queries() {
    const float factor = heads_.scale * kLog2E;
    const auto* q = call_.q.as<float>() + kv_head_ * n_queries_ * heads_.head_dim;
    std::fill_n(queries_, ScratchShape(heads_).queries, 0.0F);
    for (int64_t i = 0; i < n_queries_ * heads_.head_dim; ++i) queries_[i] = q[i] * factor;
  }

  // The hull of the row's keys in a block, whole vectors wide.
  Hull hull_of(int64_t index) const {
    const int64_t first_key = index * kRowTile;
    const int64_t end = std::clamp<int64_t>(call_.row + 1 - first_key, 0, kRowTile);
    const int64_t band = std::clamp<int64_t>(kernels::window_start(call_.window, call_.row) - first_key, 0, kRowTile);
    const int64_t begin = call_.window.sinks > first_key ? 0 : band;
    return {begin / 16 * 16, (end + 15) / 16 * 16,
            end == kRowTile && (band == 0 || call_.window.sinks >= first_key + band)};
  }

  // Keys and values of a block, at least those of its hull.
  Block block(int64_t index, const Hull& hull, int64_t place) {
    const int64_t first = index * kRowTile;
    const bool in_place = call_.cache.n_sinks + call_.cache.n_ring > call_.row;  // nothing is forgotten yet
    if (in_place) {
      const float* at = slot_block(first);
      return {at + kv_head_ * heads_.head_dim * kRowTile,
              at + key_block_count(heads_) + kv_head_ * kRowTile * stride()};
    }
    gather(hull, first, place);
    return {keys_ + place * heads_.head_dim * kRowTile, values_ + place * kRowTile * stride()};
  }

  const float* slot_block(int64_t slot) const {
    return kv_blocks(call_.cache.kv) + slot / kRowTile * kv_block_count(heads_);
  }

  // Brings the rows of a block that the row sees from their slots; all others are 0.
  void gather(const Hull& hull, int64_t first, int64_t place) {
    float* keys = keys_ + place * heads_.head_dim * kRowTile;
    float* values = values_ + place * kRowTile * stride();
    for (int64_t j = hull.begin; j < hull.end; ++j) {
      if (!kernels::sees(call_.window, call_.row, first + j)) {
        for (int64_t d = 0; d < heads_.head_dim; ++d) keys[d * kRowTile + j] = 0.0F;
        std::fill_n(values + j * stride(), stride(), 0.0F);
        continue;
      }
      const int64_t slot = call_.cache.slot(first + j);
      const float* from = slot_block(slot);
      const float* key = from + kv_head_ * heads_.head_dim * kRowTile + slot % kRowTile;
      for (int64_t d = 0; d < heads_.head_dim; ++d) keys[d * kRowTile + j] = key[d * kRowTile];
      std::copy_n(from + key_block_count(heads_) + (kv_head_ * kRowTile + slot % kRowTile) * stride(), stride(),
                  values + j * stride());
    }
  }

  void process_group(const int64_t* indices, int64_t n_blocks) {
    Block blocks[kGroupBlocks];
    Hull hulls[kGroupBlocks];
    for (int64_t i = 0; i < n_blocks; ++i) {
      hulls[i] = hull_of(indices[i]);
      blocks[i] = block(indices[i], hulls[i], i);
    }
    for (int64_t query = 0; query < n_queries_; query += kStripRows) {
      float* scores = scores_ + query * kGroupKeys;
      for (int64_t i = 0; i < n_blocks; ++i) {
        kernels_.multiply_strip({.a = queries_ + query * heads_.head_dim,
                                 .lda = heads_.head_dim,
                                 .b = blocks[i].keys + hulls[i].begin,
                                 .ldb = kRowTile,
                                 .c = scores + i * kRowTile + hulls[i].begin,
                                 .ldc = kGroupKeys,
                                 .n_k = heads_.head_dim,
                                 .n_columns = hulls[i].end - hulls[i].begin});
        cap_scores(hulls[i], scores + i * kRowTile);
        if (!hulls[i].whole) hide_unseen(indices[i] * kRowTile, hulls[i], scores + i * kRowTile);
      }
      for (int64_t r = query; r < query + kStripRows; ++r) {
        kernels_.soften(scores_ + r * kGroupKeys, hulls, n_blocks, running_[static_cast<std::size_t>(r)],
                        out_ + r * stride(), stride());
      }
      for (int64_t i = 0; i < n_blocks; ++i) {
        kernels_.add_strip_product({.a = scores + i * kRowTile + hulls[i].begin,
                                    .lda = kGroupKeys,
                                    .b = blocks[i].values + hulls[i].begin * stride(),
                                    .ldb = stride(),
                                    .c = out_ + query * stride(),
                                    .ldc = stride(),
                                    .n_k = hulls[i].end - hulls[i].begin,
                                    .n_columns = stride()});
      }
    }
  }

  // Scores are in units of log2(e), and so is the cap.
  void cap_scores(const Hull& hull, float* scores) const {
    if (heads_.softcap == 0.F || hull.begin >= hull.end) return;
    for (int64_t r = 0; r < kStripRows; ++r) {
      kernels_.cap_row(scores + r * kGroupKeys + hull.begin, hull.end - hull.begin, heads_.softcap * kLog2E);
    }
  }

  void hide_unseen(int64_t first_key, const Hull& hull, float* scores) const {
    for (int64_t j = hull.begin; j < hull.end; ++j) {
      if (kernels::sees(call_.window, call_.row, first_key + j)) continue;
      for (int64_t r = 0; r < kStripRows; ++r) scores[r * kGroupKeys + j] = kHidden;
    }
  }

  void write_result() const {
    auto* to = call_.out.as<float>() + kv_head_ * n_queries_ * heads_.head_dim;
    const auto* sink_logits = call_.sink_logits.as<float>();
    for (int64_t r = 0; r < n_queries_; ++r) {
      const float inverse =
          inverse_denominator(running_[static_cast<std::size_t>(r)], sink_logits, kv_head_ * n_queries_ + r);
      for (int64_t d = 0; d < heads_.head_dim; ++d) to[r * heads_.head_dim + d] = out_[r * stride() + d] * inverse;
    }
  }

  const VectorKernels& kernels_;
  const kernels::DecodeCall& call_;
  const kernels::HeadShape& heads_;
  int64_t kv_head_;
  int64_t n_queries_;  // heads of queries that share the head of keys: the rows of the strips
  float* queries_;     // (strips, head_dim), scaled by scale * log2(e)
  float* scores_;      // (strips, kGroupKeys)
  float* out_;         // (strips, padded head_dim)
  float* keys_;
  float* values_;
  std::vector<Running> running_;  // (strips)
};

}  // namespace

void CpuBackend::do_decode_attention(std::span<const kernels::DecodeCall> calls, const kernels::HeadShape& heads) {
  const int64_t count = ScratchShape(heads).total();
  const auto memory = allocate(pool_.size() * count * static_cast<int64_t>(sizeof(float)), "rows of attention");
  pool_.run(static_cast<int64_t>(calls.size()) * heads.n_kv_heads, [&](int64_t task, int thread) {
    const kernels::DecodeCall& call = calls[static_cast<std::size_t>(task / heads.n_kv_heads)];
    float* scratch = static_cast<float*>(memory->data()) + thread * count;
    RowAttention(kernels_, call, heads, task % heads.n_kv_heads, scratch).run();
  });
}

}  // namespace winnow::cpu
