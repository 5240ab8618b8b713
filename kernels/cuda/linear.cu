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
void add_bias(kernels::Rows x, const kernels::Matrix& bias, cudaStream_t stream) {
  const int64_t n = x.count() / 8;
  add_bias_kernel<<<static_cast<unsigned>((n + kAddBiasThreads - 1) / kAddBiasThreads), kAddBiasThreads, 0, stream>>>(
      x.as<Float8>(), bias.as<Bf16x8>(), n, static_cast<int>(x.cols / 8));
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

void CudaBackend::multiply(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias,
                           kernels::Rows out, bool accumulate) {
  const bool float_output = out.dtype == kernels::DType::kF32;
  if (!cublas_workspace_) cublas_workspace_ = allocate(kProductWorkspaceBytes, "cuBLAS's workspace");
  auto& product = products_[{weight.rows, weight.cols, bias ? 1 : 0, float_output ? 1 : 0}];
  if (!product) {
    product = std::make_unique<Gemm>(cublas_, weight.rows, weight.cols, static_cast<bool>(bias), float_output);
  }
  product->run({x.as<Bf16>(), weight.as<Bf16>(), bias.as<Bf16>(), out.data, cublas_workspace_->data()}, x.n_rows,
               accumulate, stream_);
}

void CudaBackend::do_linear(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias,
                            kernels::Rows out, bool accumulate) {
  if (x.n_rows == 0) return;
  // cuBLASLt adds a bias of the output's type only, and biases are bfloat16.
  const bool float_output = out.dtype == kernels::DType::kF32;
  multiply(x, weight, float_output ? kernels::Matrix{} : bias, out, accumulate);
  if (float_output && bias) add_bias(out, bias, stream_);
}

}  // namespace winnow::cuda
