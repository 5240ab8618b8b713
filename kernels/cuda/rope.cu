#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kMaxPairs = 2;  // of elements per thread and half: head_dim <= 256

struct HeadArguments {
  const Bf16* norm;  // (head_dim), or null
  float eps;
  const float* angles;  // (n_positions, head_dim)
  int32_t n_positions;
  const int32_t* positions;  // (n_rows)
  int head_dim;
};

// Norm and rotation of one head by one warp, in float32, rounded once. from and to may be the same.
__device__ void norm_and_rotate(const Bf16* from, Bf16* to, const HeadArguments& args, int64_t stack_row) {
  const int lane = threadIdx.x % kWarp;
  const int half = args.head_dim / 2;
  float2 first[kMaxPairs] = {};
  float2 second[kMaxPairs] = {};
  float sum = 0.0F;
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    const int i = 2 * (lane + p * kWarp);
    if (i >= half) continue;
    first[p] = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from + i));
    second[p] = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from + half + i));
    sum += first[p].x * first[p].x + first[p].y * first[p].y + second[p].x * second[p].x + second[p].y * second[p].y;
  }
  const float inverse =
      args.norm == nullptr ? 1.0F : rsqrtf(warp_sum(sum) / static_cast<float>(args.head_dim) + args.eps);
  const int32_t position = min(args.positions[stack_row], args.n_positions - 1);
  const float* row = args.angles + static_cast<int64_t>(position) * args.head_dim;
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    const int i = 2 * (lane + p * kWarp);
    if (i >= half) continue;
    if (args.norm != nullptr) {
      const float2 w1 = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(args.norm + i));
      const float2 w2 = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(args.norm + half + i));
      first[p] = {first[p].x * inverse * w1.x, first[p].y * inverse * w1.y};
      second[p] = {second[p].x * inverse * w2.x, second[p].y * inverse * w2.y};
    }
    const float2 c = *reinterpret_cast<const float2*>(row + i);
    const float2 s = *reinterpret_cast<const float2*>(row + half + i);
    *reinterpret_cast<__nv_bfloat162*>(to + i) =
        __floats2bfloat162_rn(first[p].x * c.x - second[p].x * s.x, first[p].y * c.y - second[p].y * s.y);
    *reinterpret_cast<__nv_bfloat162*>(to + half + i) =
        __floats2bfloat162_rn(second[p].x * c.x + first[p].x * s.x, second[p].y * c.y + first[p].y * s.y);
  }
}

__global__ void rope_kernel(Bf16* q, HeadArguments args, int n_heads, int64_t n_rows) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (task >= n_rows * n_heads) return;
  Bf16* head = q + task * args.head_dim;
  norm_and_rotate(head, head, args, task / n_heads);
}

// kv and to: (n_rows, 2 * kv_dim), a row's keys and then its values.
__global__ void store_kv_kernel(const Bf16* kv, Bf16* to, HeadArguments args, int n_kv_heads, int64_t n_rows) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (task >= n_rows * n_kv_heads) return;
  const int64_t row = task / n_kv_heads;
  const int64_t key = (row * 2 * n_kv_heads + task % n_kv_heads) * args.head_dim;
  const int64_t value = key + static_cast<int64_t>(n_kv_heads) * args.head_dim;
  norm_and_rotate(kv + key, to + key, args, row);
  for (int i = 2 * (threadIdx.x % kWarp); i < args.head_dim; i += 2 * kWarp) {
    *reinterpret_cast<__nv_bfloat162*>(to + value + i) = *reinterpret_cast<const __nv_bfloat162*>(kv + value + i);
  }
}

HeadArguments arguments(const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles) {
  return {.norm = static_cast<const Bf16*>(norm.weight.data),
          .eps = norm.eps,
          .angles = static_cast<const float*>(angles.cos_sin.data),
          .n_positions = static_cast<int32_t>(angles.cos_sin.rows),
          .positions = angles.positions,
          .head_dim = static_cast<int>(heads.head_dim)};
}

unsigned blocks_for(int64_t n_warps) {
  constexpr int64_t kWarps = kThreads / kWarp;
  return static_cast<unsigned>((n_warps + kWarps - 1) / kWarps);
}

}  // namespace

void CudaBackend::rope(void* q, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles, int64_t n_rows) {
  if (n_rows == 0) return;
  rope_kernel<<<blocks_for(n_rows * heads.n_heads), kThreads, 0, stream_>>>(
      static_cast<Bf16*>(q), arguments(heads, norm, angles), static_cast<int>(heads.n_heads), n_rows);
  WINNOW_CHECK_LAUNCH();
}

void CudaBackend::store_kv(void* kv, const HeadShape& heads, const HeadNorm& norm, const RowAngles& angles,
                           int64_t n_rows, void* to) {
  if (n_rows == 0) return;
  store_kv_kernel<<<blocks_for(n_rows * heads.n_kv_heads), kThreads, 0, stream_>>>(
      static_cast<const Bf16*>(kv), static_cast<Bf16*>(to), arguments(heads, norm, angles),
      static_cast<int>(heads.n_kv_heads), n_rows);
  WINNOW_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
