// Attention of single rows over their caches: bound by reading keys and values once. A block takes one piece of a row's
// keys for one head of keys and up to kQueries of the heads of queries that share it; a second kernel puts the pieces
// together in their order. Where a key lies in the cache and which piece it is in follow from the row alone, so a row's
// bits do not depend on the other calls.

#include <algorithm>

#include "kernels/cuda/attention_memory.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kQueries = 4;          // heads of queries of a block
constexpr int kPieceKeys = 512;      // keys of a block
constexpr int kCallsPerLaunch = 32;  // parameters must stay below 4 KiB
constexpr int kVector = 8;           // elements that a thread reads at once
constexpr float kLog2E = 1.4426950408889634F;

// The keys that a row sees, numbered: first the sinks before its band, then the band.
struct RowArguments {
  const Bf16* q;
  Bf16* out;
  const Bf16* kv;
  kernels::KvCache cache;  // its slots; `kv` has its rows
  int64_t n_sinks;
  int64_t window_start;
  int64_t n_keys;
  const float* sink_logits;  // (n_heads), or null
};

struct LaunchArguments {
  RowArguments row[kCallsPerLaunch];
  int n_heads;
  int n_kv_heads;
  int head_dim;
  int n_pieces;  // of the longest row
  float scale_log2;
  float cap_log2;  // of the scores; 0: none
  float* partial;  // (rows, n_heads, n_pieces, head_dim + 2): sum of p v, maximum, sum of p
};

struct Softmax {
  float max = -INFINITY;
  float sum = 0.0F;
};

// 2^(a - b), 0 for a of -infinity whatever b is.
__device__ inline float rescale(float a, float b) { return a == -INFINITY ? 0.0F : exp2f(a - b); }

// kLanes neighbouring threads share a key: each has kVector elements of it.
template <int kLanes>
__global__ void __launch_bounds__(kThreads) piece_kernel(const __grid_constant__ LaunchArguments launch) {
  constexpr int kGroups = kThreads / kLanes;  // keys at a time
  const RowArguments& row = launch.row[blockIdx.z];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kPieceKeys;
  if (first >= row.n_keys) return;
  const int64_t end = min(first + kPieceKeys, row.n_keys);
  const int n_shared = launch.n_heads / launch.n_kv_heads;
  const int n_blocks = (n_shared + kQueries - 1) / kQueries;
  const int kv_head = blockIdx.y / n_blocks;
  const int first_query = static_cast<int>(blockIdx.y % n_blocks) * kQueries;
  const int n_queries = min(kQueries, n_shared - first_query);
  const int lane = threadIdx.x % kLanes;
  const int group = threadIdx.x / kLanes;
  const int dim = lane * kVector;
  const bool is_active = dim < launch.head_dim;

  float q[kQueries][kVector] = {};
  float out[kQueries][kVector] = {};
  Softmax softmax[kQueries];
  const int first_head = kv_head * n_shared + first_query;
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    if (i >= n_queries || !is_active) continue;
    reinterpret_cast<const Bf16x8*>(row.q + static_cast<int64_t>(first_head + i) * launch.head_dim + dim)
        ->to_float(q[i]);
#pragma unroll
    for (float& x : q[i]) x *= launch.scale_log2;
  }

  const int64_t kv_dim = static_cast<int64_t>(launch.n_kv_heads) * launch.head_dim;
  // All threads of a warp go round equally often: they shuffle.
  for (int64_t base = first; base < end; base += kGroups) {
    const int64_t n = base + group;
    const bool is_key = n < end;
    const int64_t key = n < row.n_sinks ? n : row.window_start + n - row.n_sinks;
    float k[kVector] = {};
    float v[kVector] = {};
    if (is_key && is_active) {
      const Bf16* at = row.kv + row.cache.slot(key) * 2 * kv_dim + kv_head * launch.head_dim + dim;
      reinterpret_cast<const Bf16x8*>(at)->to_float(k);
      reinterpret_cast<const Bf16x8*>(at + kv_dim)->to_float(v);
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      float score = 0.0F;
#pragma unroll
      for (int e = 0; e < kVector; ++e) score += q[i][e] * k[e];
#pragma unroll
      for (int offset = kLanes / 2; offset > 0; offset /= 2) score += __shfl_xor_sync(0xFFFFFFFFU, score, offset);
      if (!is_key) continue;
      if (launch.cap_log2 > 0.0F) score = launch.cap_log2 * tanhf(score / launch.cap_log2);
      const float max = fmaxf(softmax[i].max, score);
      const float before = rescale(softmax[i].max, max);
      const float p = exp2f(score - max);
      softmax[i].sum = softmax[i].sum * before + p;
      softmax[i].max = max;
#pragma unroll
      for (int e = 0; e < kVector; ++e) out[i][e] = out[i][e] * before + p * v[e];
    }
  }

  // The groups of threads one after another, in one order.
  __shared__ float shared_out[kGroups][kLanes * kVector];
  __shared__ Softmax shared_softmax[kGroups];
  for (int i = 0; i < n_queries; ++i) {
#pragma unroll
    for (int q_index = 0; q_index < kQueries; ++q_index) {
      if (q_index != i) continue;
      if (lane == 0) shared_softmax[group] = softmax[q_index];
#pragma unroll
      for (int e = 0; e < kVector; ++e) shared_out[group][dim + e] = out[q_index][e];
    }
    __syncthreads();
    float max = -INFINITY;
    for (int g = 0; g < kGroups; ++g) max = fmaxf(max, shared_softmax[g].max);
    float* to = launch.partial +
                ((static_cast<int64_t>(blockIdx.z) * launch.n_heads + first_head + i) * launch.n_pieces + blockIdx.x) *
                    (launch.head_dim + 2);
    for (int d = threadIdx.x; d < launch.head_dim; d += kThreads) {
      float sum = 0.0F;
      for (int g = 0; g < kGroups; ++g) sum += rescale(shared_softmax[g].max, max) * shared_out[g][d];
      to[d] = sum;
    }
    if (threadIdx.x == 0) {
      float sum = 0.0F;
      for (int g = 0; g < kGroups; ++g) sum += rescale(shared_softmax[g].max, max) * shared_softmax[g].sum;
      to[launch.head_dim] = max;
      to[launch.head_dim + 1] = sum;
    }
    __syncthreads();
  }
}

// One block a row and head.
__global__ void __launch_bounds__(kThreads) merge_kernel(const __grid_constant__ LaunchArguments launch) {
  const RowArguments& row = launch.row[blockIdx.y];
  const int head = blockIdx.x;
  const int stride = launch.head_dim + 2;
  const int n_pieces = static_cast<int>((row.n_keys + kPieceKeys - 1) / kPieceKeys);
  const float* from =
      launch.partial + (static_cast<int64_t>(blockIdx.y) * launch.n_heads + head) * launch.n_pieces * stride;
  float max = -INFINITY;
  for (int i = 0; i < n_pieces; ++i) max = fmaxf(max, from[i * stride + launch.head_dim]);
  float total = 0.0F;
  for (int i = 0; i < n_pieces; ++i) {
    total += rescale(from[i * stride + launch.head_dim], max) * from[i * stride + launch.head_dim + 1];
  }
  if (row.sink_logits != nullptr) total += exp2f(row.sink_logits[head] * kLog2E - max);
  for (int d = threadIdx.x; d < launch.head_dim; d += kThreads) {
    float sum = 0.0F;
    for (int i = 0; i < n_pieces; ++i) sum += rescale(from[i * stride + launch.head_dim], max) * from[i * stride + d];
    row.out[static_cast<int64_t>(head) * launch.head_dim + d] = __float2bfloat16_rn(sum / total);
  }
}

RowArguments arguments(const kernels::DecodeCall& call) {
  const int64_t band = window_start(call.window, call.row);
  const int64_t sinks = std::min(call.window.sinks, band);  // 0 where the row sees everything
  return {.q = call.q.as<Bf16>(),
          .out = call.out.as<Bf16>(),
          .kv = kv_elements<Bf16>(call.cache.kv),
          .cache = call.cache,
          .n_sinks = sinks,
          .window_start = band,
          .n_keys = sinks + call.row + 1 - band,
          .sink_logits = call.sink_logits.as<float>()};
}

void launch_pieces(const LaunchArguments& launch, const dim3& grid, cudaStream_t stream) {
  if (launch.head_dim <= 32) {
    piece_kernel<4><<<grid, kThreads, 0, stream>>>(launch);
  } else if (launch.head_dim <= 64) {
    piece_kernel<8><<<grid, kThreads, 0, stream>>>(launch);
  } else if (launch.head_dim <= 128) {
    piece_kernel<16><<<grid, kThreads, 0, stream>>>(launch);
  } else {
    piece_kernel<32><<<grid, kThreads, 0, stream>>>(launch);
  }
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

void CudaBackend::do_decode_attention(std::span<const kernels::DecodeCall> calls, const kernels::HeadShape& heads) {
  LaunchArguments launch{};
  launch.n_heads = static_cast<int>(heads.n_heads);
  launch.n_kv_heads = static_cast<int>(heads.n_kv_heads);
  launch.head_dim = static_cast<int>(heads.head_dim);
  launch.scale_log2 = heads.scale * kLog2E;
  launch.cap_log2 = heads.softcap * kLog2E;
  const int64_t n_shared = heads.n_heads / heads.n_kv_heads;
  const int64_t n_blocks = heads.n_kv_heads * ((n_shared + kQueries - 1) / kQueries);
  for (std::size_t begin = 0; begin < calls.size(); begin += kCallsPerLaunch) {
    const std::size_t n = std::min<std::size_t>(kCallsPerLaunch, calls.size() - begin);
    int64_t most_keys = 0;
    for (std::size_t i = 0; i < n; ++i) {
      launch.row[i] = arguments(calls[begin + i]);
      most_keys = std::max(most_keys, launch.row[i].n_keys);
    }
    launch.n_pieces = static_cast<int>((most_keys + kPieceKeys - 1) / kPieceKeys);
    const int64_t count = static_cast<int64_t>(n) * heads.n_heads * launch.n_pieces * (heads.head_dim + 2);
    attention_memory_->partial.reserve(*this, count * static_cast<int64_t>(sizeof(float)), "pieces of attention");
    launch.partial = static_cast<float*>(attention_memory_->partial.data());
    launch_pieces(
        launch, dim3(static_cast<unsigned>(launch.n_pieces), static_cast<unsigned>(n_blocks), static_cast<unsigned>(n)),
        stream_);
    merge_kernel<<<dim3(static_cast<unsigned>(heads.n_heads), static_cast<unsigned>(n)), kThreads, 0, stream_>>>(
        launch);
    WINNOW_CUDA_CHECK_LAUNCH();
  }
}

}  // namespace winnow::cuda
