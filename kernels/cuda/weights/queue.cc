#include "kernels/cuda/weights/queue.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/weights/staging.h"
#include "kernels/cuda/weights/unpack_rows.h"

namespace winnow::cuda {

std::unique_ptr<kernels::WeightQueue> CudaBackend::make_weight_queue() {
  return std::make_unique<CudaWeightQueue>(*this);
}

CudaWeightQueue::CudaWeightQueue(CudaBackend& backend) : backend_(backend) {
  // The kernels that unpack are short, and a layer is late if they wait behind those of the operations.
  int least = 0;
  int greatest = 0;
  WINNOW_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  WINNOW_CUDA_CHECK(cudaStreamCreateWithPriority(&copies_, cudaStreamNonBlocking, greatest));
  // Memory comes in the order of the operations' stream, and is set to zero there: once that is done, it may be written
  // from this one. What it fills was allocated before.
  try {
    backend.synchronize();
  } catch (...) {
    release();
    throw;
  }
}

CudaWeightQueue::~CudaWeightQueue() {
  // Neither the memory that is copied from nor that which is written may go before. The operations that read it are
  // before its release in the order of their own stream.
  cudaStreamSynchronize(copies_);
  release();
}

void CudaWeightQueue::release() {
  for (const Slot& slot : slots_) {
    if (slot.loaded != nullptr) cudaEventDestroy(slot.loaded);
    if (slot.left != nullptr) cudaEventDestroy(slot.left);
  }
  cudaStreamDestroy(copies_);
}

CudaWeightQueue::Slot& CudaWeightQueue::at(std::size_t slot) {
  while (slots_.size() <= slot) {
    Slot& made = slots_.emplace_back();
    WINNOW_CUDA_CHECK(cudaEventCreateWithFlags(&made.loaded, cudaEventDisableTiming));
    WINNOW_CUDA_CHECK(cudaEventCreateWithFlags(&made.left, cudaEventDisableTiming));
  }
  return slots_[slot];
}

// An event that was never recorded keeps nobody waiting: a slot that nobody has used yet is free.
void CudaWeightQueue::begin(std::size_t slot) { WINNOW_CUDA_CHECK(cudaStreamWaitEvent(copies_, at(slot).left, 0)); }

void CudaWeightQueue::end(std::size_t slot) { WINNOW_CUDA_CHECK(cudaEventRecord(at(slot).loaded, copies_)); }

void CudaWeightQueue::enter(std::size_t slot) {
  WINNOW_CUDA_CHECK(cudaStreamWaitEvent(backend_.stream(), at(slot).loaded, 0));
}

void CudaWeightQueue::leave(std::size_t slot) { WINNOW_CUDA_CHECK(cudaEventRecord(at(slot).left, backend_.stream())); }

kernels::Matrix CudaWeightQueue::load(const kernels::HostTensor& source, kernels::WeightUse use,
                                      std::span<const std::byte> staged, std::span<std::byte> packed,
                                      std::span<std::byte> storage) {
  const bool is_packed = backend_.packed_bytes(source, use) > 0;
  std::byte* const to = is_packed ? packed.data() : storage.data();
  if (!staged.empty()) {
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(to, staged.data(), staged.size(), cudaMemcpyHostToDevice, copies_));
  } else if (is_packed) {
    backend_.staging().upload_packed(source, 0, source.rows(), to, copies_);
  } else {
    backend_.staging().upload(source, use == kernels::WeightUse::kTable, to, copies_);
  }
  if (is_packed) unpack_rows(*source.values->packed_rows(), to, source.rows(), storage.data(), copies_);
  return backend_.weight_at(storage.data(), source, use);
}

}  // namespace winnow::cuda
