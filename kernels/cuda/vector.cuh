// Several values at a time: one access of 8 or 16 bytes for bfloat16, up to two of 16 for float32.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace winnow::cuda {

using Bf16 = __nv_bfloat16;

template <int kCount>
struct alignas(2 * kCount) Bf16Vector {
  __nv_bfloat162 pair[kCount / 2];

  __device__ void to_float(float (&out)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      const float2 both = __bfloat1622float2(pair[i]);
      out[2 * i] = both.x;
      out[2 * i + 1] = both.y;
    }
  }
  __device__ static Bf16Vector from_float(const float (&in)[kCount]) {
    Bf16Vector v;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) v.pair[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
    return v;
  }
};

template <int kCount>
struct alignas(16) FloatVector {
  float value[kCount];

  __device__ void to_float(float (&out)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = value[i];
  }
  __device__ static FloatVector from_float(const float (&in)[kCount]) {
    FloatVector v;
#pragma unroll
    for (int i = 0; i < kCount; ++i) v.value[i] = in[i];
    return v;
  }
};

using Bf16x4 = Bf16Vector<4>;
using Bf16x8 = Bf16Vector<8>;
using Float4 = FloatVector<4>;
using Float8 = FloatVector<8>;

// Returns keys and values: (n_rows, 2 * n_kv_heads * head_dim), a row's keys and then its values.
template <typename Element>
Element* kv_elements(const kernels::KvSpan& kv) {
  return static_cast<Element*>(kv.data);
}

inline constexpr int kWarp = 32;

// Returns the sum over a warp to all its threads.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFU, x, offset);
  return x;
}

// Returns the sum over a block of kThreads, in a fixed order, to all its threads.
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

// What a view of rows may be taken for, vector by vector.
template <>
inline constexpr winnow::kernels::DType winnow::kernels::kDTypeOf<__nv_bfloat16> = winnow::kernels::DType::kBf16;
template <int kCount>
inline constexpr winnow::kernels::DType winnow::kernels::kDTypeOf<winnow::cuda::Bf16Vector<kCount>> =
    winnow::kernels::DType::kBf16;
template <int kCount>
inline constexpr winnow::kernels::DType winnow::kernels::kDTypeOf<winnow::cuda::FloatVector<kCount>> =
    winnow::kernels::DType::kF32;
