#include "kernels/cuda/check.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kAddBiasThreads = 256;

__global__ void add_bias_kernel(Float8* x, const Bf16x8* bias, int64_t n, int n_vectors) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kAddBiasThreads + threadIdx.x;
  if (i >= n) return;
  float v[8];
  float b[8];
  x[i].to_float(v);
  bias[i % n_vectors].to_float(b);
#pragma unroll
  for (int e = 0; e < 8; ++e) v[e] += b[e];
  x[i] = Float8::from_float(v);
}

}  // namespace

void add_bias(void* x, const void* bias, int64_t n_rows, int64_t n_cols, cudaStream_t stream) {
  const int64_t n = n_rows * (n_cols / 8);
  add_bias_kernel<<<static_cast<unsigned>((n + kAddBiasThreads - 1) / kAddBiasThreads), kAddBiasThreads, 0, stream>>>(
      static_cast<Float8*>(x), static_cast<const Bf16x8*>(bias), n, static_cast<int>(n_cols / 8));
  WINNOW_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
