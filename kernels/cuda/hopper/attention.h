// Attention with Hopper's asynchronous products (sm_90a): no library and no plan, all calls in one launch.
#pragma once

#include <cuda_runtime.h>

#include <span>

#include "kernels/cuda/flash_attention.cuh"
#include "kernels/ops.h"

namespace winnow::cuda::hopper {

// In the GPU's memory, zero before the first launch; launches that share one come one after another.
struct Schedule {
  unsigned next = 0;  // tiles of rows that blocks have taken, beyond their first
  unsigned done = 0;  // blocks that have ended
};

// Of calls with too few rows for all blocks, the keys are split: each part leaves what it has found here, and a second
// kernel adds the parts up, in their order.
inline constexpr int64_t kPartialBytes = int64_t{64} << 20;

struct Memory {
  Schedule* schedule = nullptr;
  float* partial = nullptr;  // kPartialBytes
};

// Computes what own_attention() does, with the same contract, for heads of up to 256. Source: FlashAttention-3 (arXiv
// 2407.08608), section 3; for the split keys Flash-Decoding (arXiv 2311.01282), section 2. Whether and where keys are
// split follows from a call's own rows and tokens.
void attention(std::span<const kernels::AttentionCall> calls, std::span<const LseRows> lse,
               const kernels::HeadShape& heads, const Memory& memory, cudaStream_t stream);

}  // namespace winnow::cuda::hopper
