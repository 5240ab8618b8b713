// Eight values at a time: one 16-byte access for bfloat16, two for float32.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace winnow::cuda {

using Bf16 = __nv_bfloat16;

struct alignas(16) Bf16x8 {
  __nv_bfloat162 pair[4];

  __device__ void to_float(float (&out)[8]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 both = __bfloat1622float2(pair[i]);
      out[2 * i] = both.x;
      out[2 * i + 1] = both.y;
    }
  }
  __device__ static Bf16x8 from_float(const float (&in)[8]) {
    Bf16x8 v;
#pragma unroll
    for (int i = 0; i < 4; ++i) v.pair[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
    return v;
  }
};

struct alignas(32) Float8 {
  float value[8];

  __device__ void to_float(float (&out)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = value[i];
  }
  __device__ static Float8 from_float(const float (&in)[8]) {
    Float8 v;
#pragma unroll
    for (int i = 0; i < 8; ++i) v.value[i] = in[i];
    return v;
  }
};

inline constexpr int kWarp = 32;

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, offset);
  return x;
}

// Sum over a block of kThreads, in a fixed order, for all its threads.
template <int kThreads>
__device__ inline float block_sum(float x) {
  __shared__ float partial[kThreads / kWarp];
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kThreads / kWarp; ++i) sum += partial[i];
  __syncthreads();
  return sum;
}

}  // namespace winnow::cuda
