// Log-sum-exp of query rows over sets of keys. A block takes some query heads that share a key head, of one or a few
// rows, so that a key is read once for all of them; its threads take every kThreads-th key, at absolute places.

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kQueries = 8;  // of a block: rows times heads of a group
constexpr int kSets = static_cast<int>(kernels::kMaxKeySets);
constexpr int kMostHeadDim = 256;
constexpr int64_t kRowChunk = 1024;  // rows whose results are held at a time

struct LseArguments {
  const Bf16* q;                // (n_rows, n_heads, head_dim)
  const Bf16* kv;               // (keys, 2 * n_kv_heads * head_dim), a row's keys and then its values
  const kernels::KeySet* sets;  // (n_rows, n_sets)
  double* lse;                  // (n_rows, n_sets, n_heads)
  float scale;
  float softcap;  // 0: none
  int n_rows, n_sets, n_heads, n_kv_heads, head_dim;
  int heads_of_block;  // of a group, at most kQueries
  int rows_of_block;
};

// Softmax sums of one query over the sets, of the keys that one thread has seen.
struct Sums {
  float max;
  float of_set[kSets];
};

__device__ bool holds(const kernels::KeySet& set, int key) {
  return key < set.sinks || (key >= set.begin && key < set.end);
}

__global__ void __launch_bounds__(kThreads) lse_kernel(LseArguments args) {
  __shared__ float queries[kQueries][kMostHeadDim];
  __shared__ kernels::KeySet sets[kQueries][kSets];
  __shared__ Sums partial[kThreads];
  __shared__ int end_key;
  const int group = args.n_heads / args.n_kv_heads;
  const int chunks = (group + args.heads_of_block - 1) / args.heads_of_block;
  const int kv_head = blockIdx.y / chunks;
  const int first_head = kv_head * group + blockIdx.y % chunks * args.heads_of_block;
  const int end_head = min(first_head + args.heads_of_block, (kv_head + 1) * group);
  const int first_row = blockIdx.x * args.rows_of_block;
  // Query i of the block; beyond the last row or head: none, an empty set.
  const auto row_of = [&](int i) { return first_row + i / args.heads_of_block; };
  const auto head_of = [&](int i) { return first_head + i % args.heads_of_block; };
  const auto is_query = [&](int i) {
    return i < args.rows_of_block * args.heads_of_block && row_of(i) < args.n_rows && head_of(i) < end_head;
  };
  if (threadIdx.x == 0) end_key = 0;
  __syncthreads();
  for (int i = 0; i < kQueries; ++i) {
    const Bf16* q = args.q + (static_cast<int64_t>(row_of(i)) * args.n_heads + head_of(i)) * args.head_dim;
    for (int d = threadIdx.x; d < args.head_dim; d += kThreads) {
      queries[i][d] = is_query(i) ? __bfloat162float(q[d]) * args.scale : 0.0F;
    }
  }
  if (threadIdx.x < kQueries * kSets) {
    const int i = threadIdx.x / kSets;
    const int s = threadIdx.x % kSets;
    kernels::KeySet set{0, 0, 0};
    if (is_query(i) && s < args.n_sets) set = args.sets[static_cast<int64_t>(row_of(i)) * args.n_sets + s];
    sets[i][s] = set;
    atomicMax(&end_key, max(set.sinks, set.begin < set.end ? set.end : 0));  // of integers: the order does not matter
  }
  __syncthreads();

  Sums sums[kQueries];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) sums[i] = {-FLT_MAX, {}};
  const int64_t key_stride = 2LL * args.n_kv_heads * args.head_dim;
  for (int key = threadIdx.x; key < end_key; key += kThreads) {
    bool is_held[kQueries];
    bool is_needed = false;
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      is_held[i] = false;
      for (int s = 0; s < args.n_sets; ++s) is_held[i] = is_held[i] || holds(sets[i][s], key);
      is_needed = is_needed || is_held[i];
    }
    if (!is_needed) continue;
    float scores[kQueries] = {};
    const Bf16* k = args.kv + key * key_stride + static_cast<int64_t>(kv_head) * args.head_dim;
    for (int d = 0; d < args.head_dim; d += 8) {
      float part[8];
      reinterpret_cast<const Bf16x8*>(k + d)->to_float(part);
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
#pragma unroll
        for (int e = 0; e < 8; ++e) scores[i] += queries[i][d + e] * part[e];
      }
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      if (!is_held[i]) continue;
      if (args.softcap > 0.0F) scores[i] = args.softcap * tanhf(scores[i] / args.softcap);
      if (scores[i] > sums[i].max) {
        const float rescale = __expf(sums[i].max - scores[i]);
#pragma unroll
        for (int s = 0; s < kSets; ++s) sums[i].of_set[s] *= rescale;
        sums[i].max = scores[i];
      }
      const float e = __expf(scores[i] - sums[i].max);
#pragma unroll
      for (int s = 0; s < kSets; ++s) sums[i].of_set[s] += holds(sets[i][s], key) ? e : 0.0F;
    }
  }

  // The threads' sums together, in their order: thread s adds up set s.
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    partial[threadIdx.x] = sums[i];
    __syncthreads();
    if (threadIdx.x < args.n_sets && is_query(i)) {
      float max = -FLT_MAX;
      for (int t = 0; t < kThreads; ++t) max = fmaxf(max, partial[t].max);
      double sum = 0.0;
      for (int t = 0; t < kThreads; ++t) {
        const float of_thread = partial[t].of_set[threadIdx.x];
        if (of_thread != 0.0F) sum += of_thread * exp(static_cast<double>(partial[t].max) - max);
      }
      const int64_t at = (static_cast<int64_t>(row_of(i)) * args.n_sets + threadIdx.x) * args.n_heads + head_of(i);
      args.lse[at] = sum == 0.0 ? -HUGE_VAL : log(sum) + max;
    }
    __syncthreads();
  }
}

}  // namespace

int64_t attention_lse_bytes(const kernels::HeadShape& heads) {
  return kRowChunk * kSets *
         static_cast<int64_t>(sizeof(kernels::KeySet) + static_cast<std::size_t>(heads.n_heads) * sizeof(double));
}

void CudaBackend::do_attention_lse(const kernels::LseCall& call, const kernels::HeadShape& heads) {
  const int64_t n_sets = call.n_sets();
  if (call.keys.first_row != 0) fail(ExitCode::kInternal, "attention_lse: keys must begin at row 0");
  const auto sets = allocate(kRowChunk * n_sets * static_cast<int64_t>(sizeof(kernels::KeySet)), "sets of keys");
  const auto lse = allocate(kRowChunk * n_sets * heads.n_heads * static_cast<int64_t>(sizeof(double)), "log-sum-exps");
  const auto group = static_cast<int>(heads.n_heads / heads.n_kv_heads);
  const int heads_of_block = std::min(group, kQueries);
  const int chunks = (group + heads_of_block - 1) / heads_of_block;
  const int rows_of_block = kQueries / heads_of_block;
  for (int64_t row = 0; row < call.n_rows(); row += kRowChunk) {
    const int64_t n = std::min(kRowChunk, call.n_rows() - row);
    const auto of_rows =
        call.sets.subspan(static_cast<std::size_t>(row * n_sets), static_cast<std::size_t>(n * n_sets));
    WINNOW_CUDA_CHECK(
        cudaMemcpyAsync(sets->data(), of_rows.data(), of_rows.size_bytes(), cudaMemcpyHostToDevice, stream_));
    const LseArguments args{.q = call.q.as<Bf16>() + row * heads.q_dim(),
                            .kv = kv_elements<Bf16>(call.keys.kv),
                            .sets = static_cast<const kernels::KeySet*>(sets->data()),
                            .lse = static_cast<double*>(lse->data()),
                            .scale = heads.scale,
                            .softcap = heads.softcap,
                            .n_rows = static_cast<int>(n),
                            .n_sets = static_cast<int>(n_sets),
                            .n_heads = static_cast<int>(heads.n_heads),
                            .n_kv_heads = static_cast<int>(heads.n_kv_heads),
                            .head_dim = static_cast<int>(heads.head_dim),
                            .heads_of_block = heads_of_block,
                            .rows_of_block = rows_of_block};
    const dim3 grid(static_cast<unsigned>((n + rows_of_block - 1) / rows_of_block),
                    static_cast<unsigned>(heads.n_kv_heads * chunks));
    lse_kernel<<<grid, kThreads, 0, stream_>>>(args);
    WINNOW_CUDA_CHECK_LAUNCH();
    const auto n_values = static_cast<std::size_t>(n * n_sets * heads.n_heads);
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(call.lse.data() + row * n_sets * heads.n_heads, lse->data(),
                                      n_values * sizeof(double), cudaMemcpyDeviceToHost, stream_));
    synchronize();
  }
}

}  // namespace winnow::cuda
