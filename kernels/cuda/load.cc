// Weights on their way to the GPU: read and converted to bfloat16 into pinned memory by several threads, one piece
// while the piece before is being copied.

#include <algorithm>
#include <cstring>

#include "kernels/convert.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/staging.h"

namespace winnow::cuda {

namespace {

// One thread reads cached pages through the map at 3 to 4 GB/s (pread into the same memory was no faster): this many
// keep up with PCI Express.
constexpr int kMaxThreads = 8;
// Elements that one thread converts at a time.
constexpr int64_t kTaskElements = 1 << 18;

// Elements [first, first + count) as bfloat16.
void convert(const kernels::HostTensor& source, int64_t first, int64_t count, uint16_t* to) {
  if (source.dtype == kernels::DType::kBf16) {
    std::memcpy(to, source.data + 2 * first, static_cast<std::size_t>(count) * 2);
    return;
  }
  constexpr int64_t kPiece = 4096;
  float values[kPiece];
  for (int64_t at = 0; at < count; at += kPiece) {
    const int64_t n = std::min(kPiece, count - at);
    kernels::read_float32(source, first + at, n, values);
    for (int64_t i = 0; i < n; ++i) to[at + i] = kernels::float_to_bfloat16(values[i]);
  }
}

}  // namespace

Staging::Staging() : pool_(std::min(kMaxThreads, usable_cores())) {
  try {
    for (Slot& slot : slots_) {
      WINNOW_CUDA_CHECK(cudaMallocHost(&slot.data, kSlotBytes));
      WINNOW_CUDA_CHECK(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming));
    }
  } catch (...) {
    release();
    throw;
  }
}

Staging::~Staging() {
  for (const Slot& slot : slots_) cudaEventSynchronize(slot.copied);  // no copy may still read what is freed
  release();
}

void Staging::release() {
  for (Slot& slot : slots_) {
    if (slot.copied != nullptr) cudaEventDestroy(slot.copied);
    if (slot.data != nullptr) cudaFreeHost(slot.data);
    slot = Slot{};
  }
}

void Staging::upload(const kernels::HostTensor& source, bool as_float32, void* to, cudaStream_t stream) {
  const int64_t element = as_float32 ? 4 : 2;
  const int64_t piece = kSlotBytes / element;
  for (int64_t at = 0; at < source.count(); at += piece) {
    const int64_t n = std::min(piece, source.count() - at);
    Slot& slot = slots_[next_slot_];
    next_slot_ = (next_slot_ + 1) % kSlots;
    WINNOW_CUDA_CHECK(cudaEventSynchronize(slot.copied));  // the copy before from this memory
    pool_.run((n + kTaskElements - 1) / kTaskElements, [&](int64_t task, int) {
      const int64_t first = task * kTaskElements;
      const int64_t count = std::min(kTaskElements, n - first);
      if (as_float32) {
        kernels::read_float32(source, at + first, count, static_cast<float*>(slot.data) + first);
      } else {
        convert(source, at + first, count, static_cast<uint16_t*>(slot.data) + first);
      }
    });
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(to) + at * element, slot.data,
                                      static_cast<std::size_t>(n * element), cudaMemcpyHostToDevice, stream));
    WINNOW_CUDA_CHECK(cudaEventRecord(slot.copied, stream));
  }
}

int64_t CudaBackend::weight_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const {
  return source.count() * (use == kernels::WeightUse::kTable ? 4 : 2);
}

kernels::Matrix CudaBackend::load(const kernels::HostTensor& source, kernels::WeightUse use, void* storage) {
  if (!staging_) staging_ = std::make_unique<Staging>();
  staging_->upload(source, use == kernels::WeightUse::kTable, storage, stream_);
  return {storage, use == kernels::WeightUse::kTable ? kernels::DType::kF32 : kernels::DType::kBf16, source.rows(),
          source.cols()};
}

}  // namespace winnow::cuda
