// What comes after the halves of an attention: their merge, and the sink logits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace winnow::cuda {

struct MergeArguments {
  void* out = nullptr;          // (n_rows, n_heads, head_dim) bfloat16: first half, and the result
  const void* other = nullptr;  // second half; null: there is none
  const float* lse = nullptr;   // (n_heads, n_rows), natural log
  const float* other_lse = nullptr;
  const float* sink_logits = nullptr;  // (n_heads); null: there are none
  int64_t n_rows = 0;
  int64_t n_heads = 0;
  int64_t head_dim = 0;
};
// Sets out = (out e^lse + other e^other_lse) / (e^lse + e^other_lse + e^sink_logit), per row and head.
void merge_attention(const MergeArguments& arguments, cudaStream_t stream);

}  // namespace winnow::cuda
