#include "kernels/cuda/experts/routing.cuh"

#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr int kChoosingRows = 4;  // of a block, one a warp
constexpr int kPlacingThreads = 256;
constexpr int kPlacingWarps = kPlacingThreads / kWarp;

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// NaN is never chosen before a number: the order of values has to be the same for all lanes.
__device__ inline float number(float x) { return isnan(x) ? -INFINITY : x; }

struct Best {
  float value;
  int index;  // -1: none
};

// Ties go to the lower index.
__device__ inline Best better(const Best& a, const Best& b) {
  if (b.index < 0) return a;
  if (a.index < 0) return b;
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

// The values of a row in shared memory, of which each lane of a warp works on every 32nd.
class WarpRow {
 public:
  __device__ WarpRow(float* values, int n) : values_(values), n_(n), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  template <typename Function>
  __device__ void each(Function function) {
    for (int i = lane_; i < n_; i += kWarp) function(i, values_[i]);
  }

  // Turns the values into the softmax over them.
  __device__ void soften() {
    float most = -INFINITY;
    each([&](int, float& value) { most = fmaxf(most, value); });
    most = warp_max(most);
    float sum = 0.0F;
    each([&](int, float& value) { sum += value = expf(value - most); });
    sum = warp_sum(sum);
    each([&](int, float& value) { value /= sum; });
  }

  // Returns to all lanes the index of the largest value that was not taken before, and takes it. There is one.
  __device__ int take_best() {
    Best best{-INFINITY, -1};
    for (int i = lane_, bit = 0; i < n_; i += kWarp, ++bit) {
      if ((taken_ >> bit & 1U) == 0) best = better(best, {values_[i], i});
    }
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const Best other{__shfl_xor_sync(kAllLanes, best.value, offset), __shfl_xor_sync(kAllLanes, best.index, offset)};
      best = better(best, other);
    }
    if (best.index % kWarp == lane_) taken_ |= 1U << (best.index / kWarp);
    return best.index;
  }
  // Tells of one of this lane's own.
  __device__ bool is_taken(int i) const { return (taken_ >> (i / kWarp) & 1U) != 0; }

 private:
  float* values_;
  int n_;
  int lane_;
  uint32_t taken_ = 0;  // of this lane's values
};

// Hides the experts outside the best groups; `sums` is memory for a value a group.
__device__ void keep_best_groups(const kernels::RouterShape& shape, float* choice, float* sums) {
  const auto n_experts = static_cast<int>(shape.n_experts);
  const auto n_groups = static_cast<int>(shape.n_groups);
  const int size = n_experts / n_groups;
  WarpRow groups(sums, n_groups);
  groups.each([&](int group, float& sum) {
    float first = -INFINITY;
    float second = -INFINITY;
    for (int i = group * size; i < (group + 1) * size; ++i) {
      second = fmaxf(second, fminf(first, choice[i]));
      first = fmaxf(first, choice[i]);
    }
    sum = number(size == 1 ? first : first + second);
  });
  for (int n = 0; n < shape.top_groups; ++n) groups.take_best();
  groups.each([&](int group, float& sum) { sum = groups.is_taken(group) ? 1.0F : 0.0F; });
  __syncwarp();
  WarpRow(choice, n_experts).each([&](int i, float& value) {
    if (sums[i / size] == 0.0F) value = -INFINITY;
  });
}

// A warp chooses the experts of a row.
__global__ void choose_kernel(const float* logits, const float* bias, const float* correction,
                              kernels::RouterShape shape, int64_t n_rows, Routing to) {
  __shared__ float shared_scores[kChoosingRows][kMaxExperts];
  __shared__ float shared_choice[kChoosingRows][kMaxExperts];
  __shared__ float shared_groups[kChoosingRows][kMaxExperts];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kChoosingRows + warp;
  if (row >= n_rows) return;  // a whole warp: nothing below waits for the block
  const auto n_experts = static_cast<int>(shape.n_experts);
  const auto top_k = static_cast<int>(shape.top_k);
  float* scores = shared_scores[warp];
  WarpRow scores_row(scores, n_experts);
  scores_row.each([&](int i, float& score) {
    score = logits[row * n_experts + i] + (bias == nullptr ? 0.0F : bias[i]);
    if (shape.scores == kernels::RouterScores::kSigmoid) score = 1.0F / (1.0F + expf(-score));
  });
  if (shape.scores == kernels::RouterScores::kSoftmax) scores_row.soften();
  float* choice = shared_choice[warp];
  scores_row.each(
      [&](int i, float& score) { choice[i] = number(correction == nullptr ? score : score + correction[i]); });
  __syncwarp();
  if (shape.top_groups < shape.n_groups) keep_best_groups(shape, choice, shared_groups[warp]);

  // Lane k has the k-th best expert.
  WarpRow choice_row(choice, n_experts);
  int mine = -1;
  for (int k = 0; k < top_k; ++k) {
    const int best = choice_row.take_best();
    if (lane == k) mine = best;
  }
  const bool has_one = lane < top_k;
  float weight = has_one ? scores[mine] : 0.0F;
  if (shape.scores == kernels::RouterScores::kSoftmaxOfChosen) {
    const float most = warp_max(has_one ? weight : -INFINITY);
    weight = has_one ? expf(weight - most) : 0.0F;
    weight /= warp_sum(weight);
  }
  // Transformers' smallest addend: it keeps a sum of nothing from dividing.
  weight *= shape.normalised ? shape.scale / (warp_sum(weight) + 1e-20F) : shape.scale;
  int rank = 0;
  for (int k = 0; k < top_k; ++k) rank += __shfl_sync(kAllLanes, mine, k) < mine ? 1 : 0;
  if (!has_one) return;
  const int64_t slot = row * top_k + rank;
  to.chosen[slot] = mine;
  to.weights[slot] = weight;
  atomicAdd(to.counts + mine, 1);
}

// One block sums up the counts, a thread an expert, and lists the tiles.
__global__ void list_tiles_kernel(int n_experts, Routing to) {
  __shared__ int2 sums[kMaxExperts];  // rows and tiles of the experts up to this one
  const auto e = static_cast<int>(threadIdx.x);
  const int count = e < n_experts ? to.counts[e] : 0;
  const int n_tiles = (count + kExpertTileRows - 1) / kExpertTileRows;
  sums[e] = {count, n_tiles};
  __syncthreads();
  for (int offset = 1; offset < kMaxExperts; offset *= 2) {
    const int2 below = e >= offset ? sums[e - offset] : int2{0, 0};
    __syncthreads();
    sums[e].x += below.x;
    sums[e].y += below.y;
    __syncthreads();
  }
  const int first = sums[e].x - count;
  const int first_tile = sums[e].y - n_tiles;
  if (e < n_experts) to.firsts[e] = first;
  for (int t = 0; t < n_tiles; ++t) {
    const int before = t * kExpertTileRows;
    to.tiles[first_tile + t] = {e, first + before, min(kExpertTileRows, count - before)};
  }
  for (int64_t t = sums[kMaxExperts - 1].y + e; t < to.n_tiles; t += kMaxExperts) to.tiles[t] = {0, 0, 0};
}

// A block gives the rows of one expert their places, in the order of the rows.
__global__ void place_kernel(int64_t n_rows, int top_k, Routing to) {
  __shared__ int of_warps[kPlacingWarps];
  const auto expert = static_cast<int>(blockIdx.x);
  if (to.counts[expert] == 0) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int first = to.firsts[expert];
  for (int64_t begin = 0; begin < n_rows; begin += kPlacingThreads) {
    const int64_t row = begin + threadIdx.x;
    int64_t slot = -1;
    for (int k = 0; row < n_rows && k < top_k; ++k) {
      if (to.chosen[row * top_k + k] == expert) slot = row * top_k + k;
    }
    const unsigned found = __ballot_sync(kAllLanes, slot >= 0);
    if (lane == 0) of_warps[warp] = __popc(found);
    __syncthreads();
    int place = first + __popc(found & ((1U << lane) - 1U));
#pragma unroll
    for (int w = 0; w < kPlacingWarps; ++w) {
      if (w < warp) place += of_warps[w];
      first += of_warps[w];
    }
    if (slot >= 0) {
      to.places[slot] = place;
      to.rows[place] = static_cast<int>(row);
    }
    __syncthreads();  // of_warps has been read
  }
}

}  // namespace

void route(const float* logits, int64_t n_rows, const kernels::Router& router, const Routing& to, cudaStream_t stream) {
  const kernels::RouterShape& shape = router.shape;
  const auto n_experts = static_cast<unsigned>(shape.n_experts);
  WINNOW_CUDA_CHECK(cudaMemsetAsync(to.counts, 0, n_experts * sizeof(int), stream));
  const auto blocks = static_cast<unsigned>((n_rows + kChoosingRows - 1) / kChoosingRows);
  choose_kernel<<<blocks, kChoosingRows * kWarp, 0, stream>>>(logits, router.bias.as<float>(),
                                                              router.correction.as<float>(), shape, n_rows, to);
  WINNOW_CUDA_CHECK_LAUNCH();
  list_tiles_kernel<<<1, kMaxExperts, 0, stream>>>(static_cast<int>(n_experts), to);
  WINNOW_CUDA_CHECK_LAUNCH();
  place_kernel<<<n_experts, kPlacingThreads, 0, stream>>>(n_rows, static_cast<int>(shape.top_k), to);
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
