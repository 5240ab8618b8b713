#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
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

// x += bias for float32 rows x (n_rows, n_cols) and bfloat16 bias (n_cols); n_cols is a multiple of 8.
void add_bias(void* x, const void* bias, int64_t n_rows, int64_t n_cols, cudaStream_t stream) {
  const int64_t n = n_rows * (n_cols / 8);
  add_bias_kernel<<<static_cast<unsigned>((n + kAddBiasThreads - 1) / kAddBiasThreads), kAddBiasThreads, 0, stream>>>(
      static_cast<Float8*>(x), static_cast<const Bf16x8*>(bias), n, static_cast<int>(n_cols / 8));
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

void CudaBackend::multiply(const void* x, const kernels::Matrix& weight, const void* bias, void* out, int64_t n_rows,
                           bool accumulate, bool float_output) {
  if (!cublas_workspace_) cublas_workspace_ = allocate(kProductWorkspaceBytes, "cuBLAS's workspace");
  auto& product = products_[{weight.rows, weight.cols, bias != nullptr ? 1 : 0, float_output ? 1 : 0}];
  if (!product) {
    product = std::make_unique<Gemm>(cublas_, weight.rows, weight.cols, bias != nullptr, float_output);
  }
  product->run({x, weight.data, bias, out, cublas_workspace_->data()}, n_rows, accumulate, stream_);
}

void CudaBackend::linear(const void* x, const kernels::Matrix& weight, const kernels::Matrix& bias, void* out,
                         int64_t n_rows, bool accumulate) {
  if (n_rows == 0) return;
  const bool float_output = accumulate && residual_dtype() == kernels::DType::kF32;
  // cuBLASLt adds a bias of the output's type only, and biases are bfloat16.
  multiply(x, weight, float_output ? nullptr : bias.data, out, n_rows, accumulate, float_output);
  if (float_output && bias) add_bias(out, bias.data, n_rows, weight.rows, stream_);
}

}  // namespace winnow::cuda
