// One block is a few warpgroups that multiply, 64 query rows of one head each, and one that has keys and values copied
// to shared memory ahead of them. Blocks stay and take one tile of rows after another, so that the copies for the next
// begin while the last is written. Within a warpgroup the softmax of a tile of keys runs beside the product of the one
// before with its values; warpgroups take turns at issuing products, so that one multiplies while the others soften.
// ptxas moves the wait for that product up, before most of the softmax. To hold it back (separate bodies for tiles that
// hide keys and for those that do not, and a branch on the sums before the wait) was measured to be 1 to 10 % slower.
//
// Row contract: a tile of keys that is hidden from a row but loaded for its neighbours adds exactly 0 to it: exp2(-inf)
// = 0, and its running maximum, and so the rescaling by 1, do not move.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/hopper/attention_units.cuh"

namespace winnow::cuda::hopper {

// The one thread that has everything copied to shared memory.
template <int kDim>
class Producer {
 public:
  __device__ Producer(const LaunchArguments& launch, SharedTiles<kDim>& shared) : launch_(launch), shared_(shared) {}

  __device__ void run() {
    int parity = 1;  // the first wait for an empty place passes at once
    int unit_parity = 1;
    for (int index = blockIdx.x;; index = gridDim.x + atomicAdd(&launch_.schedule->next, 1)) {
      shared_.unit_empty.wait(unit_parity);
      unit_parity ^= 1;
      shared_.unit = index;
      shared_.unit_full.arrive();
      if (index >= launch_.n_units) break;
      const Unit unit = unit_of<kDim>(launch_, index);
      if (unit.n_tiles == 0) continue;
      copy_queries(unit, parity);
      parity ^= 1;
      for (int i = 0; i < unit.n_tiles; ++i) {
        copy_keys(unit, unit.tiles.tile(i), false);
        if (i > 0) copy_keys(unit, unit.tiles.tile(i - 1), true);
      }
      copy_keys(unit, unit.tiles.tile(unit.n_tiles - 1), true);
    }
    // The last block leaves the schedule as the next launch needs it.
    if (atomicInc(&launch_.schedule->done, gridDim.x - 1) == gridDim.x - 1) launch_.schedule->next = 0;
  }

 private:
  using S = Shape<kDim>;

  __device__ void copy_queries(const Unit& unit, int parity) {
    shared_.queries_empty.wait(parity);
    shared_.queries_full.arrive_and_expect(static_cast<int>(sizeof(shared_.queries)));
#pragma unroll
    for (int c = 0; c < kColumns<kDim>; ++c) {
      copy_box(shared_.queries[c], unit.call->q, shared_.queries_full, c * kColumn, unit.head, unit.row);
    }
  }

  // Tiles do not straddle the two sources: own_first_row is a multiple of the row tile.
  __device__ void copy_keys(const Unit& unit, int tile, bool values) {
    Place<S::kStages>& place = values ? values_ : keys_;
    Barrier& full = (values ? shared_.values_full : shared_.keys_full)[place.stage];
    (values ? shared_.values_empty : shared_.keys_empty)[place.stage].wait(place.parity ^ 1);
    auto& to = (values ? shared_.values : shared_.keys)[place.stage];
    full.arrive_and_expect(static_cast<int>(sizeof(to)));
    const int row = tile * S::kKeys;
    const bool own = row >= unit.call->own_first_row;
    const CUtensorMap& from = own ? unit.call->own : unit.call->prefix;
    const int head = unit.head / (launch_.n_heads / launch_.n_kv_heads) + (values ? launch_.n_kv_heads : 0);
#pragma unroll
    for (int c = 0; c < kColumns<kDim>; ++c) {
      copy_box(to[c], from, full, c * kColumn, head, own ? row - unit.call->own_first_row : row);
    }
    place.advance();
  }

  const LaunchArguments& launch_;
  SharedTiles<kDim>& shared_;
  Place<S::kStages> keys_;
  Place<S::kStages> values_;
};

// Named barriers: the turns of the warpgroups, from this on.
constexpr int kFirstTurn = 1;

// One warpgroup that multiplies.
template <int kDim, bool kCaps>
class Consumer {
 public:
  __device__ Consumer(const LaunchArguments& launch, SharedTiles<kDim>& shared, int group)
      : launch_(launch), shared_(shared), group_(group), thread_(static_cast<int>(threadIdx.x) % kGroup) {}

  __device__ void run() {
    if (group_ == S::kConsumers - 1) arrive_named(kFirstTurn, 2 * kGroup);
    int parity = 0;
    for (int unit_parity = 0;; unit_parity ^= 1) {
      shared_.unit_full.wait(unit_parity);
      const int index = shared_.unit;
      shared_.unit_empty.arrive();
      if (index >= launch_.n_units) break;
      const Unit unit = unit_of<kDim>(launch_, index);
      clear();
      if (unit.n_tiles > 0) {
        shared_.queries_full.wait(parity);
        parity ^= 1;
        attend(unit);
      }
      write(unit);
    }
    // The turn that nobody waits for any more.
    if (group_ == 0) wait_named(kFirstTurn, 2 * kGroup);
  }

 private:
  using S = Shape<kDim>;
  static constexpr int kScores = S::kKeys / 2;           // of a thread: 64 rows by kKeys over 128 threads
  static constexpr int kOutputs = kDim / S::kParts / 2;  // of a thread and part
  static constexpr int kWeights = S::kKeys / 4;          // of a thread, in pairs

  __device__ void attend(const Unit& u) {
    call_ = u.call;
    first_ = u.first + group_ * kGroupRows;
    mark_whole_tiles(min(first_ + kGroupRows - 1, u.last));
    float scores[kScores];
    uint32_t weights[kWeights];

    take_turn();
    begin_scores(scores);
    pass_turn();
    wait_products<0>();
    hold(scores);
    keys_release();
    if (u.n_tiles == 1) shared_.queries_empty.arrive();
    soften(scores, u.tiles.tile(0));
    pack(scores, weights);
    for (int i = 1; i < u.n_tiles; ++i) {
      take_turn();
      begin_scores(scores);
      begin_values(weights);
      pass_turn();
      wait_products<1>();
      hold(scores);
      keys_release();
      if (i + 1 == u.n_tiles) shared_.queries_empty.arrive();
      soften(scores, u.tiles.tile(i));
      wait_products<0>();
      hold_outputs(weights);
      values_release();
      rescale_outputs();
      pack(scores, weights);
    }
    begin_values(weights);
    wait_products<0>();
    hold_outputs(weights);
    values_release();
  }

  // A warpgroup issues its products when its turn comes, one warpgroup after the other.
  __device__ void take_turn() { wait_named(kFirstTurn + group_, 2 * kGroup); }
  __device__ void pass_turn() { arrive_named(kFirstTurn + (group_ + 1) % S::kConsumers, 2 * kGroup); }

  __device__ void begin_scores(float (&scores)[kScores]) {
    shared_.keys_full[keys_.stage].wait(keys_.parity);
    fence_products();
    hold(scores);
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const Bf16* q = shared_.queries[k / 4] + group_ * kGroupRows * kColumn + k % 4 * 16;
      const Bf16* keys = shared_.keys[keys_.stage][k / 4] + k % 4 * 16;
      multiply(scores, operand(q, 0), operand(keys, 0), k > 0);
    }
    commit_products();
  }
  __device__ void keys_release() {
    shared_.keys_empty[keys_.stage].arrive();
    keys_.advance();
  }

  __device__ void begin_values(uint32_t (&weights)[kWeights]) {
    shared_.values_full[values_.stage].wait(values_.parity);
    hold(weights);
#pragma unroll
    for (auto& part : out_) hold(part);
    fence_products();
    constexpr int kColumnBytes = S::kKeys * kColumn * 2;
#pragma unroll
    for (int k = 0; k < S::kKeys / 16; ++k) {
#pragma unroll
      for (int p = 0; p < S::kParts; ++p) {
        const Bf16* values = shared_.values[values_.stage][p * (kColumns<kDim> / S::kParts)] + k * 16 * kColumn;
        multiply(out_[p], weights + 4 * k, operand(values, kColumnBytes));
      }
    }
    commit_products();
  }
  __device__ void hold_outputs(uint32_t (&weights)[kWeights]) {
    hold(weights);
#pragma unroll
    for (auto& part : out_) hold(part);
  }
  __device__ void values_release() {
    shared_.values_empty[values_.stage].arrive();
    values_.advance();
  }

  __device__ void clear() {
#pragma unroll
    for (auto& part : out_) {
#pragma unroll
      for (float& x : part) x = 0.0F;
    }
    max_[0] = max_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0F;
  }

  // The last key of a tile is not in the first row's future, and its first key is in every band.
  __device__ void mark_whole_tiles(int last) {
    const kernels::Window& w = call_->window;
    begin_whole_ = static_cast<int>((latest_band_start(w, first_, last) + S::kKeys - 1) / S::kKeys);
    end_whole_ = (first_ + 1) / S::kKeys;
    end_whole_sinks_ = static_cast<int>(min(w.sinks, int64_t{first_} + 1) / S::kKeys);
  }

  // Scores to exp2(score - maximum), in place; rescale_ is what brings earlier sums and outputs to the new maximum.
  __device__ void soften(float (&scores)[kScores], int tile) {
    if constexpr (kCaps) {
      const float inward = launch_.scale_log2 / launch_.cap_log2;
      const float outward = 1.0F / inward;
#pragma unroll
      for (int i = 0; i < kScores; ++i) scores[i] = outward * tanh_fast(scores[i] * inward);
    }
    const bool whole = tile < end_whole_ && (tile >= begin_whole_ || tile < end_whole_sinks_);
    if (!whole) hide(scores, tile * S::kKeys);
    // Two chains for each of the thread's two rows: a chain of as many operations as there are scores would be waited
    // for.
    float highest[2][2] = {{-INFINITY, -INFINITY}, {-INFINITY, -INFINITY}};
#pragma unroll
    for (int c = 0; c < kScores / 4; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) highest[e / 2][e % 2] = fmaxf(highest[e / 2][e % 2], scores[4 * c + e]);
    }
    float reference[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float found = quad_max(fmaxf(highest[half][0], highest[half][1])) * launch_.scale_log2;
      const float now = fmaxf(max_[half], found);
      reference[half] = now == -INFINITY ? 0.0F : now;
      rescale_[half] = exp2_fast(max_[half] - reference[half]);
      max_[half] = now;
    }
    float sum[2][2] = {};
#pragma unroll
    for (int c = 0; c < kScores / 4; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& score = scores[4 * c + e];
        score = exp2_fast(score * launch_.scale_log2 - reference[e / 2]);
        sum[e / 2][e % 2] += score;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum_[half] = sum_[half] * rescale_[half] + (sum[half][0] + sum[half][1]);
    }
  }

  __device__ void hide(float (&scores)[kScores], int first_key) const {
    const kernels::Window& w = call_->window;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Keys [0, sinks) and [start, t] of the row, counted from the tile's first.
      const int64_t t = first_ + row_in_group(half);
      const int end = static_cast<int>(t - first_key);
      const int start = static_cast<int>(max(kernels::window_start(w, t) - first_key, int64_t{-1}));
      const int sinks = static_cast<int>(min(max(w.sinks - first_key, int64_t{0}), int64_t{S::kKeys}));
#pragma unroll
      for (int c = 0; c < kScores / 4; ++c) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int j = c * 8 + thread_ % 4 * 2 + e;
          if (j > end || (j < start && j >= sinks)) scores[4 * c + 2 * half + e] = -INFINITY;
        }
      }
    }
  }

  // Most tiles move no maximum: a product with 1 changes no bit.
  __device__ void rescale_outputs() {
    if constexpr (kDim != 128) {  // where the branch costs more than it saves
      if (__all_sync(0xFFFFFFFFU, rescale_[0] == 1.0F && rescale_[1] == 1.0F)) return;
    }
#pragma unroll
    for (auto& part : out_) {
#pragma unroll
      for (int c = 0; c < kOutputs / 4; ++c) {
        part[4 * c] *= rescale_[0];
        part[4 * c + 1] *= rescale_[0];
        part[4 * c + 2] *= rescale_[1];
        part[4 * c + 3] *= rescale_[1];
      }
    }
  }

  __device__ static void pack(const float (&scores)[kScores], uint32_t (&weights)[kWeights]) {
#pragma unroll
    for (int i = 0; i < kWeights; ++i) weights[i] = cuda::pack(scores[2 * i], scores[2 * i + 1]);
  }

  __device__ int row_in_group(int half) const { return thread_ / 32 * 16 + thread_ % 32 / 4 + half * 8; }

  __device__ void write(const Unit& unit) {
    if (unit.call->n_parts > 1) {
      write_part(unit);
      return;
    }
    const CallArguments& call = *unit.call;
    const float sink_log2 = call.sink_logits == nullptr ? -INFINITY : call.sink_logits[unit.head] * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = unit.row + group_ * kGroupRows + row_in_group(half);
      const float total = quad_sum(sum_[half]);
      if (row >= call.n_rows) continue;
      const bool real = call.first_row + row < call.n_tokens;
      float denominator = total;
      if (sink_log2 != -INFINITY) denominator += exp2f(sink_log2 - max_[half]);
      const float inverse = real ? 1.0F / denominator : 0.0F;
      Bf16* to = call.out + (static_cast<int64_t>(row) * launch_.n_heads + unit.head) * launch_.head_dim;
#pragma unroll
      for (int p = 0; p < S::kParts; ++p) {
#pragma unroll
        for (int c = 0; c < kOutputs / 4; ++c) {
          const int column = p * 2 * kOutputs + c * 8;
          if (column >= launch_.head_dim) continue;
          *reinterpret_cast<uint32_t*>(to + column + thread_ % 4 * 2) =
              cuda::pack(out_[p][4 * c + 2 * half] * inverse, out_[p][4 * c + 2 * half + 1] * inverse);
        }
      }
      if (call.lse != nullptr && thread_ % 4 == 0) {
        call.lse[unit.head * call.lse_stride + row] = real ? (max_[half] + log2f(total)) * kLn2 : 0.0F;
      }
    }
  }

  __device__ void write_part(const Unit& unit) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = unit.row + group_ * kGroupRows + row_in_group(half);
      const float total = quad_sum(sum_[half]);
      if (row >= unit.call->n_rows) continue;
      float* to = unit.call->partial_of(unit.part, row, unit.head, launch_);
#pragma unroll
      for (int p = 0; p < S::kParts; ++p) {
#pragma unroll
        for (int c = 0; c < kOutputs / 4; ++c) {
          const int column = p * 2 * kOutputs + c * 8;
          if (column >= launch_.head_dim) continue;
          *reinterpret_cast<float2*>(to + column + thread_ % 4 * 2) =
              make_float2(out_[p][4 * c + 2 * half], out_[p][4 * c + 2 * half + 1]);
        }
      }
      if (thread_ % 4 == 0) *reinterpret_cast<float2*>(to + launch_.head_dim) = make_float2(max_[half], total);
    }
  }

  const LaunchArguments& launch_;
  SharedTiles<kDim>& shared_;
  int group_;
  int thread_;
  const CallArguments* call_ = nullptr;
  int first_ = 0;  // first row of this warpgroup, absolute
  // Tiles of keys that all of its rows see whole: [begin_whole_, end_whole_), and of the sinks those before
  // end_whole_sinks_.
  int begin_whole_ = 0;
  int end_whole_ = 0;
  int end_whole_sinks_ = 0;
  Place<S::kStages> keys_;
  Place<S::kStages> values_;
  float out_[S::kParts][kOutputs];
  float max_[2];  // of the scores, times log2(e), of rows row_in_group(0) and row_in_group(1)
  float sum_[2];  // this thread's part
  float rescale_[2];
};

}  // namespace winnow::cuda::hopper
