// Weights on their way to the GPU: read and brought into another form in pinned memory by several threads, one piece
// while the piece before is being copied.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <functional>

#include "base/thread_pool.h"
#include "kernels/tensor.h"

namespace winnow::cuda {

class Staging {
 public:
  // A piece is a slot's worth. Small enough that the first copy begins early, large enough that handing out its tasks
  // costs nothing beside reading them.
  static constexpr int64_t kSlotBytes = 16 << 20;

  Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  // Both return when the source has been read; the copy itself is in the order of the stream.
  // Queues the copy of a whole tensor to device memory `to`, as float32 or as bfloat16.
  void upload(const kernels::HostTensor& source, bool as_float32, std::byte* to, cudaStream_t stream);
  // Queues the copy of rows [first, first + n), packed (kernels/packed_rows.h), of at most kSlotBytes each.
  void upload_packed(const kernels::HostTensor& source, int64_t first, int64_t n, std::byte* to, cudaStream_t stream);

  // Write what these copy to memory of the host, and return when it is there.
  void write(const kernels::HostTensor& source, bool as_float32, std::byte* to);
  void write_packed(const kernels::HostTensor& source, std::byte* to);

 private:
  // Writes elements or rows [first, first + n) to pinned memory.
  using Fill = std::function<void(int64_t first, int64_t n, std::byte* to)>;
  static Fill values_of(const kernels::HostTensor& source, bool as_float32);
  static Fill packed_rows_of(const kernels::HostTensor& source, int64_t first);
  // Has several threads write elements or rows [0, n) of so many bytes from `first` on.
  void fill_memory(int64_t first, int64_t n, int64_t size_bytes, const Fill& fill, std::byte* to);
  // Queues the copy of n elements or rows of so many bytes.
  void copy(int64_t n, int64_t size_bytes, const Fill& fill, std::byte* to, cudaStream_t stream);

  // A layer has as many small tensors (norms, biases) as large ones, and each takes a slot: with this many, reading
  // goes on while the copies of several pieces are still on their way.
  static constexpr std::size_t kSlots = 6;
  struct Slot {
    std::byte* data = nullptr;
    cudaEvent_t copied = nullptr;
  };
  void release();

  std::array<Slot, kSlots> slots_;
  std::size_t next_slot_ = 0;
  ThreadPool pool_;
};

}  // namespace winnow::cuda
