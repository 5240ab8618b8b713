#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"

namespace winnow::cuda {

void CudaBackend::multiply(const void* x, const kernels::Matrix& weight, const void* bias, void* out, int64_t n_rows,
                           bool accumulate, bool float_output) {
  if (!cublas_workspace_) cublas_workspace_ = allocate(kProductWorkspaceBytes, "cuBLAS's workspace");
  auto& product = products_[{weight.rows, weight.cols, bias != nullptr ? 1 : 0, float_output ? 1 : 0}];
  if (!product) {
    product = std::make_unique<Product>(cublas_, weight.rows, weight.cols, bias != nullptr, float_output);
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
