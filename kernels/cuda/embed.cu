#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kEmbedThreads = 128;

template <typename Vector>
__global__ void embed_kernel(const Bf16x8* table, const int32_t* tokens, float scale, Vector* out, int n_vectors) {
  const int64_t row = blockIdx.x;
  const int32_t token = tokens[row];
  for (int i = threadIdx.x; i < n_vectors; i += kEmbedThreads) {
    float v[8] = {};
    if (token >= 0) table[static_cast<int64_t>(token) * n_vectors + i].to_float(v);
#pragma unroll
    for (float& e : v) e *= scale;
    out[row * n_vectors + i] = Vector::from_float(v);
  }
}

}  // namespace

void CudaBackend::do_embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float scale,
                           kernels::Rows out) {
  if (out.n_rows == 0) return;
  const auto launch = [&](auto* rows) {
    embed_kernel<<<static_cast<unsigned>(out.n_rows), kEmbedThreads, 0, stream_>>>(
        table.as<Bf16x8>(), tokens.data(), scale, rows, static_cast<int>(table.cols / 8));
  };
  if (out.dtype == kernels::DType::kF32) {
    launch(out.as<Float8>());
  } else {
    launch(out.as<Bf16x8>());
  }
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
