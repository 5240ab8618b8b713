#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kEmbedThreads = 128;

template <typename Vector>
__global__ void embed_kernel(const Bf16x8* table, const int32_t* tokens, Vector* out, int n_vectors) {
  const int64_t row = blockIdx.x;
  const int32_t token = tokens[row];
  for (int i = threadIdx.x; i < n_vectors; i += kEmbedThreads) {
    float v[8] = {};
    if (token >= 0) table[static_cast<int64_t>(token) * n_vectors + i].to_float(v);
    out[row * n_vectors + i] = Vector::from_float(v);
  }
}

}  // namespace

void CudaBackend::embed(const kernels::Matrix& table, const int32_t* tokens, void* out, int64_t n_rows) {
  if (n_rows == 0) return;
  const auto launch = [&](auto* rows) {
    embed_kernel<<<static_cast<unsigned>(n_rows), kEmbedThreads, 0, stream_>>>(
        static_cast<const Bf16x8*>(table.data), tokens, rows, static_cast<int>(table.cols / 8));
  };
  if (options_.residual == kernels::DType::kF32) {
    launch(static_cast<Float8*>(out));
  } else {
    launch(static_cast<Bf16x8*>(out));
  }
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
