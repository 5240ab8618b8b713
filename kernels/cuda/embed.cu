#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 128;

__global__ void embed_kernel(const Bf16x8* table, const int32_t* tokens, int64_t n_tokens, Bf16x8* out, int n_vectors) {
  const int64_t row = blockIdx.x;
  for (int i = threadIdx.x; i < n_vectors; i += kThreads) {
    out[row * n_vectors + i] = row < n_tokens ? table[static_cast<int64_t>(tokens[row]) * n_vectors + i] : Bf16x8{};
  }
}

}  // namespace

void CudaBackend::embed(const Matrix& table, std::span<const int32_t> tokens, void* out, int64_t n_rows) {
  const auto memory = allocate(static_cast<int64_t>(tokens.size_bytes()), "token ids");
  WINNOW_CHECK(cudaMemcpyAsync(memory->data(), tokens.data(), tokens.size_bytes(), cudaMemcpyHostToDevice, stream_));
  embed_kernel<<<static_cast<unsigned>(n_rows), kThreads, 0, stream_>>>(
      static_cast<const Bf16x8*>(table.data), static_cast<const int32_t*>(memory->data()),
      static_cast<int64_t>(tokens.size()), static_cast<Bf16x8*>(out), static_cast<int>(table.cols / 8));
  WINNOW_CHECK_LAUNCH();
  synchronize();  // before the token ids go
}

}  // namespace winnow::cuda
