#include "kernels/cuda/merge_attention.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kMergeThreads = 256;

__global__ void merge_kernel(MergeArguments a) {
  const int pieces = static_cast<int>(a.head_dim / 8);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kMergeThreads + threadIdx.x;
  if (i >= a.n_rows * a.n_heads * pieces) return;
  const int64_t row_head = i / pieces;
  const int64_t at = row_head % a.n_heads * a.n_rows + row_head / a.n_heads;
  const float other_lse = a.other == nullptr ? -INFINITY : a.other_lse[at];
  const float highest = fmaxf(a.lse[at], other_lse);
  const float weight = __expf(a.lse[at] - highest);
  const float other_weight = __expf(other_lse - highest);
  float sum = weight + other_weight;
  if (a.sink_logits != nullptr) sum += __expf(a.sink_logits[row_head % a.n_heads] - highest);
  const float inverse = 1.0F / sum;
  float x[8];
  float y[8] = {};
  static_cast<const Bf16x8*>(a.out)[i].to_float(x);
  if (a.other != nullptr) static_cast<const Bf16x8*>(a.other)[i].to_float(y);
#pragma unroll
  for (int e = 0; e < 8; ++e) x[e] = (x[e] * weight + y[e] * other_weight) * inverse;
  static_cast<Bf16x8*>(a.out)[i] = Bf16x8::from_float(x);
}

}  // namespace

void merge_attention(const MergeArguments& arguments, cudaStream_t stream) {
  const int64_t n = arguments.n_rows * arguments.n_heads * (arguments.head_dim / 8);
  merge_kernel<<<static_cast<unsigned>((n + kMergeThreads - 1) / kMergeThreads), kMergeThreads, 0, stream>>>(arguments);
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
