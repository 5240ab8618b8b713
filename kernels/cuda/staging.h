// Pinned memory through which weights reach the GPU.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "kernels/cpu/thread_pool.h"
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
  void upload(const HostTensor& source, bool as_float32, void* to, cudaStream_t stream);

 private:
  static constexpr int64_t kBytes = 32 << 20;
  struct Half {
    void* data = nullptr;
    cudaEvent_t copied = nullptr;
  };
  std::array<Half, 2> halves_;
  std::size_t next_half_ = 0;
  cpu::ThreadPool pool_;
};

}  // namespace winnow::cuda
