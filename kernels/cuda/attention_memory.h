// Scratch memory of the attention calls, kept from call to call, and the merge of two halves.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "kernels/ops.h"

namespace winnow::cuda {

// Memory that grows to what was asked for most.
class Scratch {
 public:
  void reserve(kernels::Ops& ops, int64_t size_bytes, const char* what) {
    if (buffer_ && buffer_->size_bytes() >= size_bytes) return;
    buffer_.reset();
    buffer_ = ops.device().allocate(size_bytes, what);
  }
  void* data() const { return buffer_->data(); }

 private:
  std::unique_ptr<kernels::Buffer> buffer_;
};

struct AttentionMemory {
  Scratch joined;      // keys and values of a call that has them in two buffers
  Scratch second_out;  // output of the second half of a merged attention
  Scratch tile_out;    // output of tiles of which a part is wanted
  Scratch lse;         // log-sum-exp of both halves
  Scratch partial;     // what pieces of single rows' keys give
};

struct MergeArguments {
  void* out = nullptr;          // (n_rows, n_heads, head_dim) bfloat16: first half, and the result
  const void* other = nullptr;  // second half
  const float* lse = nullptr;   // (n_heads, n_rows), natural log
  const float* other_lse = nullptr;
  int64_t n_rows = 0;
  int64_t n_heads = 0;
  int64_t head_dim = 0;
};
// out = (out e^lse + other e^other_lse) / (e^lse + e^other_lse), per row and head.
void merge_attention(const MergeArguments& arguments, cudaStream_t stream);

}  // namespace winnow::cuda
