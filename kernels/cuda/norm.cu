#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kRows = kThreads / kWarp;

struct NormArguments {
  const Bf16x8* weight;  // null: there is no norm
  kernels::NormShape shape;
  int n_vectors;
  int64_t n_rows;
  float scale;  // of what is added
};

// One warp a row, which it holds in registers: read once, written once. To `out`, or added to it.
template <typename From, typename To, int kPerLane, bool kAdds>
__global__ void __launch_bounds__(kThreads) norm_kernel(const From* x, NormArguments args, To* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
  if (row >= args.n_rows) return;
  const int n_vectors = args.n_vectors;
  const int lane = threadIdx.x % kWarp;
  const From* from = x + row * n_vectors;
  To* to = out + row * n_vectors;
  From held[kPerLane];
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int i = lane + k * kWarp;
    if (i < n_vectors) held[k] = from[i];
  }
  const auto sum_over_row = [&](auto of_element) {
    float sum = 0.0F;
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      if (lane + k * kWarp >= n_vectors) continue;
      float v[8];
      held[k].to_float(v);
#pragma unroll
      for (const float e : v) sum += of_element(e);
    }
    return warp_sum(sum);
  };
  const auto n = static_cast<float>(8 * n_vectors);
  float mean = 0.0F;
  float inverse = 1.0F;
  if (args.weight != nullptr) {
    if (args.shape.kind == kernels::NormKind::kLayer) mean = sum_over_row([](float e) { return e; }) / n;
    inverse = rsqrtf(sum_over_row([=](float e) { return (e - mean) * (e - mean); }) / n + args.shape.eps);
  }
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int i = lane + k * kWarp;
    if (i >= n_vectors) continue;
    float v[8];
    held[k].to_float(v);
    if (args.weight != nullptr) {
      float w[8];
      args.weight[i].to_float(w);
#pragma unroll
      for (int e = 0; e < 8; ++e) v[e] = (v[e] - mean) * (inverse * (args.shape.offset + w[e]));
    }
    if constexpr (kAdds) {
      float sum[8];
      to[i].to_float(sum);
#pragma unroll
      for (int e = 0; e < 8; ++e) v[e] = sum[e] + args.scale * v[e];
    }
    to[i] = To::from_float(v);
  }
}

template <bool kAdds, int kPerLane, typename From, typename To>
void launch(const From* x, const NormArguments& a, To* out, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((a.n_rows + kRows - 1) / kRows);
  norm_kernel<From, To, kPerLane, kAdds><<<blocks, kThreads, 0, stream>>>(x, a, out);
  WINNOW_CUDA_CHECK_LAUNCH();
}

// The kernel with the fewest registers that hold a row; a model with longer rows was refused.
template <bool kAdds, typename From, typename To>
void choose_and_launch(const From* x, const NormArguments& a, To* out, cudaStream_t stream) {
  const int per_lane = (a.n_vectors + kWarp - 1) / kWarp;
  if (per_lane <= 4) return launch<kAdds, 4>(x, a, out, stream);
  if (per_lane <= 8) return launch<kAdds, 8>(x, a, out, stream);
  if (per_lane <= 10) return launch<kAdds, 10>(x, a, out, stream);  // hidden size 2560
  if (per_lane <= 16) return launch<kAdds, 16>(x, a, out, stream);
  if (per_lane <= 20) return launch<kAdds, 20>(x, a, out, stream);  // hidden size 5120
  launch<kAdds, 32>(x, a, out, stream);
}

NormArguments arguments(const kernels::Norm& norm, kernels::ConstRows x, float scale) {
  return {.weight = norm.weight.as<Bf16x8>(),
          .shape = norm.shape,
          .n_vectors = static_cast<int>(x.cols / 8),
          .n_rows = x.n_rows,
          .scale = scale};
}

}  // namespace

void CudaBackend::do_norm(kernels::ConstRows x, const kernels::Norm& norm, kernels::Rows out) {
  if (x.n_rows == 0) return;
  const NormArguments a = arguments(norm, x, 1.0F);
  if (x.dtype == kernels::DType::kF32) {
    choose_and_launch<false>(x.as<Float8>(), a, out.as<Bf16x8>(), stream_);
  } else {
    choose_and_launch<false>(x.as<Bf16x8>(), a, out.as<Bf16x8>(), stream_);
  }
}

void CudaBackend::do_add(kernels::ConstRows delta, const kernels::Norm& norm, float scale, kernels::Rows residual) {
  if (delta.n_rows == 0) return;
  const NormArguments a = arguments(norm, delta, scale);
  if (residual.dtype == kernels::DType::kF32) {
    choose_and_launch<true>(delta.as<Bf16x8>(), a, residual.as<Float8>(), stream_);
  } else {
    choose_and_launch<true>(delta.as<Bf16x8>(), a, residual.as<Bf16x8>(), stream_);
  }
}

}  // namespace winnow::cuda
