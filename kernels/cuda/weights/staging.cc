#include "kernels/cuda/weights/staging.h"

#include <algorithm>
#include <cstring>

#include "kernels/convert.h"
#include "kernels/cuda/check.h"

namespace winnow::cuda {

namespace {

// One thread reads cached pages through the map at 3 to 4 GB/s (pread into the same memory was no faster): this many
// keep up with PCI Express.
constexpr int kMaxThreads = 8;
// What one thread writes at a time.
constexpr int64_t kTaskBytes = 1 << 19;

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
      WINNOW_CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&slot.data), kSlotBytes));
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

void Staging::fill_memory(int64_t first, int64_t n, int64_t size_bytes, const Fill& fill, std::byte* to) {
  const int64_t per_task = std::max<int64_t>(kTaskBytes / size_bytes, 1);
  pool_.run((n + per_task - 1) / per_task, [&](int64_t task, int) {
    const int64_t at = task * per_task;
    fill(first + at, std::min(per_task, n - at), to + at * size_bytes);
  });
}

void Staging::copy(int64_t n, int64_t size_bytes, const Fill& fill, std::byte* to, cudaStream_t stream) {
  const int64_t per_slot = kSlotBytes / size_bytes;
  for (int64_t at = 0; at < n; at += per_slot) {
    const int64_t count = std::min(per_slot, n - at);
    Slot& slot = slots_[next_slot_];
    next_slot_ = (next_slot_ + 1) % kSlots;
    WINNOW_CUDA_CHECK(cudaEventSynchronize(slot.copied));  // the copy before from this memory
    fill_memory(at, count, size_bytes, fill, slot.data);
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(to + at * size_bytes, slot.data, static_cast<std::size_t>(count * size_bytes),
                                      cudaMemcpyHostToDevice, stream));
    WINNOW_CUDA_CHECK(cudaEventRecord(slot.copied, stream));
  }
}

Staging::Fill Staging::values_of(const kernels::HostTensor& source, bool as_float32) {
  return [&source, as_float32](int64_t first, int64_t n, std::byte* to) {
    if (as_float32) {
      kernels::read_float32(source, first, n, reinterpret_cast<float*>(to));
    } else {
      convert(source, first, n, reinterpret_cast<uint16_t*>(to));
    }
  };
}

Staging::Fill Staging::packed_rows_of(const kernels::HostTensor& source, int64_t first) {
  return
      [&source, first, row_bytes = source.values->packed_rows()->row_bytes()](int64_t begin, int64_t n, std::byte* to) {
        for (int64_t i = 0; i < n; ++i) source.values->pack_row(first + begin + i, to + i * row_bytes);
      };
}

void Staging::upload(const kernels::HostTensor& source, bool as_float32, std::byte* to, cudaStream_t stream) {
  copy(source.count(), as_float32 ? 4 : 2, values_of(source, as_float32), to, stream);
}

void Staging::upload_packed(const kernels::HostTensor& source, int64_t first, int64_t n, std::byte* to,
                            cudaStream_t stream) {
  copy(n, source.values->packed_rows()->row_bytes(), packed_rows_of(source, first), to, stream);
}

void Staging::write(const kernels::HostTensor& source, bool as_float32, std::byte* to) {
  fill_memory(0, source.count(), as_float32 ? 4 : 2, values_of(source, as_float32), to);
}

void Staging::write_packed(const kernels::HostTensor& source, std::byte* to) {
  fill_memory(0, source.rows(), source.values->packed_rows()->row_bytes(), packed_rows_of(source, 0), to);
}

}  // namespace winnow::cuda
