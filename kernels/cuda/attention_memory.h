// Scratch memory of the attention calls, kept from call to call.
#pragma once

#include <memory>
#include <span>

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
  // Returns the first bytes of it.
  std::span<std::byte> bytes(int64_t size_bytes) const {
    return buffer_->bytes().first(static_cast<std::size_t>(size_bytes));
  }

 private:
  std::unique_ptr<kernels::Buffer> buffer_;
};

struct AttentionMemory {
  Scratch joined;                             // keys and values of a call that has them in two buffers
  Scratch second_out;                         // output of the second half of a merged attention
  Scratch tile_out;                           // output of tiles of which a part is wanted
  Scratch lse;                                // log-sum-exp of both halves
  Scratch partial;                            // what pieces of single rows' keys give
  std::unique_ptr<kernels::Buffer> schedule;  // of Hopper's kernel
};

}  // namespace winnow::cuda
