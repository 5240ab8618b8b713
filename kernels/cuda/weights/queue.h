// Weights that come to the GPU while it computes: on a stream of their own.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/weight_queue.h"

namespace winnow::cuda {

// Everything of a slot is in the order of one stream, copies and the kernels that unpack: so packed memory that all
// tensors share is free again when the next copy into it begins. Two events a slot tie that stream to the operations'.
class CudaWeightQueue final : public kernels::WeightQueue {
 public:
  explicit CudaWeightQueue(CudaBackend& backend);
  CudaWeightQueue(const CudaWeightQueue&) = delete;
  CudaWeightQueue& operator=(const CudaWeightQueue&) = delete;
  // Waits for the copies that are under way.
  ~CudaWeightQueue() override;

  void begin(std::size_t slot) override;
  kernels::Matrix load(const kernels::HostTensor& source, kernels::WeightUse use, std::span<const std::byte> staged,
                       std::span<std::byte> packed, std::span<std::byte> storage) override;
  void end(std::size_t slot) override;
  void enter(std::size_t slot) override;
  void leave(std::size_t slot) override;

 private:
  struct Slot {
    cudaEvent_t loaded = nullptr;  // on the copies' stream, at end()
    cudaEvent_t left = nullptr;    // on the operations' stream, at leave()
  };
  Slot& at(std::size_t slot);
  void release();

  CudaBackend& backend_;
  cudaStream_t copies_ = nullptr;
  std::vector<Slot> slots_;
};

}  // namespace winnow::cuda
