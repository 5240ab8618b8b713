// Attention with mma.sync: any GPU from Ampere on, no library.
#pragma once

#include <cuda_runtime.h>

#include <span>

#include "kernels/ops.h"

namespace winnow::cuda {

// Largest head that the kernel holds in registers.
inline constexpr int64_t kMaxHeadDim = 128;

// Where the log-sum-exp of a call's rows goes: float32 (n_heads, n_rows), natural log; or nowhere.
struct LseRows {
  float* data = nullptr;
  int64_t head_stride = 0;
};

// Computes softmax(q k^T scale) v over the union of sinks and window in one pass. Keys and values are taken from the
// prefix before own.first_row and from `own` from there on, so nothing is copied. lse: one a call, or empty; sink
// logits are in the result and not in it. Source: FlashAttention-2 (arXiv 2307.08691), algorithm 1.
void own_attention(std::span<const kernels::AttentionCall> calls, std::span<const LseRows> lse,
                   const kernels::HeadShape& heads, cudaStream_t stream);

}  // namespace winnow::cuda
