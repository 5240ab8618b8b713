#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 256;

// One block a row.
template <typename Vector>
__global__ void rms_norm_kernel(const Vector* x, const Bf16x8* weight, float eps, Bf16x8* out, int n_vectors) {
  const Vector* row = x + static_cast<int64_t>(blockIdx.x) * n_vectors;
  Bf16x8* result = out + static_cast<int64_t>(blockIdx.x) * n_vectors;
  float sum = 0.0F;
  for (int i = threadIdx.x; i < n_vectors; i += kThreads) {
    float v[8];
    row[i].to_float(v);
#pragma unroll
    for (const float e : v) sum += e * e;
  }
  const float inverse = rsqrtf(block_sum<kThreads>(sum) / static_cast<float>(8 * n_vectors) + eps);
  for (int i = threadIdx.x; i < n_vectors; i += kThreads) {
    float v[8];
    float w[8];
    row[i].to_float(v);  // from the first-level cache
    weight[i].to_float(w);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] *= inverse * w[e];
    result[i] = Bf16x8::from_float(v);
  }
}

}  // namespace

void CudaBackend::rms_norm(const void* x, const Matrix& weight, float eps, void* out, int64_t n_rows) {
  if (n_rows == 0) return;
  const auto launch = [&](const auto* rows) {
    rms_norm_kernel<<<static_cast<unsigned>(n_rows), kThreads, 0, stream_>>>(
        rows, static_cast<const Bf16x8*>(weight.data), eps, static_cast<Bf16x8*>(out),
        static_cast<int>(weight.rows / 8));
  };
  if (options_.residual == DType::kF32) {
    launch(static_cast<const Float8*>(x));
  } else {
    launch(static_cast<const Bf16x8*>(x));
  }
  WINNOW_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
