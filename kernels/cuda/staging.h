// Weights on their way to the GPU: read and converted to bfloat16 into pinned memory by several threads, one piece
// while the piece before is being copied.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/tensor.h"

namespace winnow::cuda {

class Staging {
 public:
  Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  // Queues the copy of a whole tensor to device memory `to`, as float32 or as bfloat16. Returns when the source has
  // been read; the copy itself is in the order of the stream.
  void upload(const kernels::HostTensor& source, bool as_float32, std::byte* to, cudaStream_t stream);

 private:
  // A piece is a slot's worth. Small enough that the first copy begins early, large enough that handing out its tasks
  // costs nothing beside reading them.
  static constexpr int64_t kSlotBytes = 16 << 20;
  // A layer has as many small tensors (norms, biases) as large ones, and each takes a slot: with this many, reading
  // goes on while the copies of several pieces are still on their way.
  static constexpr std::size_t kSlots = 6;
  struct Slot {
    void* data = nullptr;
    cudaEvent_t copied = nullptr;
  };
  void release();

  std::array<Slot, kSlots> slots_;
  std::size_t next_slot_ = 0;
  ThreadPool pool_;
};

}  // namespace winnow::cuda
