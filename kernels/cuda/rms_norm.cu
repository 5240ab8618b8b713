#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kRows = kThreads / kWarp;

// One warp a row, which it holds in registers: read once, written once.
template <typename Vector, int kPerLane>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const Vector* x, const Bf16x8* weight, float eps, Bf16x8* out, int n_vectors, int64_t n_rows) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
  if (row >= n_rows) return;
  const int lane = threadIdx.x % kWarp;
  const Vector* from = x + row * n_vectors;
  Bf16x8* to = out + row * n_vectors;
  Vector held[kPerLane];
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int i = lane + k * kWarp;
    if (i < n_vectors) held[k] = from[i];
  }
  float sum = 0.0F;
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    if (lane + k * kWarp >= n_vectors) continue;
    float v[8];
    held[k].to_float(v);
#pragma unroll
    for (const float e : v) sum += e * e;
  }
  const float inverse = rsqrtf(warp_sum(sum) / static_cast<float>(8 * n_vectors) + eps);
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int i = lane + k * kWarp;
    if (i >= n_vectors) continue;
    float v[8];
    float w[8];
    held[k].to_float(v);
    weight[i].to_float(w);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] *= inverse * w[e];
    to[i] = Bf16x8::from_float(v);
  }
}

struct NormArguments {
  const Bf16x8* weight;
  float eps;
  Bf16x8* out;
  int n_vectors;
  int64_t n_rows;
};

template <int kPerLane, typename Vector>
void launch(const Vector* x, const NormArguments& a, cudaStream_t stream) {
  rms_norm_kernel<Vector, kPerLane><<<static_cast<unsigned>((a.n_rows + kRows - 1) / kRows), kThreads, 0, stream>>>(
      x, a.weight, a.eps, a.out, a.n_vectors, a.n_rows);
  WINNOW_CUDA_CHECK_LAUNCH();
}

// The kernel with the fewest registers that hold a row; a model with longer rows was refused.
template <typename Vector>
void choose_and_launch(const Vector* x, const NormArguments& a, cudaStream_t stream) {
  const int per_lane = (a.n_vectors + kWarp - 1) / kWarp;
  if (per_lane <= 4) return launch<4>(x, a, stream);
  if (per_lane <= 8) return launch<8>(x, a, stream);
  if (per_lane <= 10) return launch<10>(x, a, stream);  // hidden size 2560
  if (per_lane <= 16) return launch<16>(x, a, stream);
  if (per_lane <= 20) return launch<20>(x, a, stream);  // hidden size 5120
  launch<32>(x, a, stream);
}

}  // namespace

void CudaBackend::do_rms_norm(kernels::ConstRows x, const kernels::Matrix& weight, float eps, kernels::Rows out) {
  if (x.n_rows == 0) return;
  const NormArguments a{weight.as<Bf16x8>(), eps, out.as<Bf16x8>(), static_cast<int>(x.cols / 8), x.n_rows};
  if (x.dtype == kernels::DType::kF32) {
    choose_and_launch(x.as<Float8>(), a, stream_);
  } else {
    choose_and_launch(x.as<Bf16x8>(), a, stream_);
  }
}

}  // namespace winnow::cuda
