#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kAddBiasThreads = 256;

template <typename Vector>
__global__ void add_bias_kernel(Vector* x, const Bf16x8* bias, float scale, int64_t n, int n_vectors) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kAddBiasThreads + threadIdx.x;
  if (i >= n) return;
  float v[8];
  float b[8];
  x[i].to_float(v);
  bias[i % n_vectors].to_float(b);
#pragma unroll
  for (int e = 0; e < 8; ++e) v[e] += scale * b[e];
  x[i] = Vector::from_float(v);
}

// x += scale * bias for rows x (n_rows, n_cols) of either type and bfloat16 bias (n_cols); n_cols is a multiple of 8.
void add_bias(kernels::Rows x, const kernels::Matrix& bias, float scale, cudaStream_t stream) {
  const int64_t n = x.count() / 8;
  const auto launch = [&](auto* rows) {
    add_bias_kernel<<<static_cast<unsigned>((n + kAddBiasThreads - 1) / kAddBiasThreads), kAddBiasThreads, 0, stream>>>(
        rows, bias.as<Bf16x8>(), scale, n, static_cast<int>(x.cols / 8));
  };
  if (x.dtype == kernels::DType::kF32) {
    launch(x.as<Float8>());
  } else {
    launch(x.as<Bf16x8>());
  }
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

void CudaBackend::multiply(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias,
                           kernels::Rows out, bool accumulate, float scale) {
  const bool float_output = out.dtype == kernels::DType::kF32;
  if (!cublas_workspace_) cublas_workspace_ = allocate(kProductWorkspaceBytes, "cuBLAS's workspace");
  auto& product = products_[{weight.rows, weight.cols, bias ? 1 : 0, float_output ? 1 : 0}];
  if (!product) {
    product = std::make_unique<Gemm>(cublas_, weight.rows, weight.cols, static_cast<bool>(bias), float_output);
  }
  product->run({x.as<Bf16>(), weight.as<Bf16>(), bias.as<Bf16>(), out.data, cublas_workspace_->data()}, x.n_rows,
               accumulate, scale, stream_);
}

void CudaBackend::do_linear(kernels::ConstRows x, const kernels::Matrix& weight, const kernels::Matrix& bias,
                            kernels::Rows out, bool accumulate, float scale) {
  if (x.n_rows == 0) return;
  // cuBLASLt adds a bias of the output's type only, and biases are bfloat16; and it adds it as it is.
  const bool adds_bias = bias && (out.dtype == kernels::DType::kF32 || scale != 1.F);
  multiply(x, weight, adds_bias ? kernels::Matrix{} : bias, out, accumulate, scale);
  if (adds_bias) add_bias(out, bias, scale, stream_);
}

}  // namespace winnow::cuda
