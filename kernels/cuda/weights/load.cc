// Weights into the GPU's memory.
#include <algorithm>

#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/weights/staging.h"
#include "kernels/cuda/weights/unpack_rows.h"

namespace winnow::cuda {

namespace {

// Packed rows that are in the GPU's memory at a time, bytes: several slots, so that copies and kernels take turns.
constexpr int64_t kUnpackBytes = 4 * Staging::kSlotBytes;

kernels::Matrix bf16_matrix(const kernels::HostTensor& source, const std::byte* data) {
  return {data, kernels::DType::kBf16, source.rows(), source.cols()};
}

}  // namespace

Staging& CudaBackend::staging() {
  if (!staging_) staging_ = std::make_shared<Staging>();
  return *staging_;
}

int64_t CudaBackend::weight_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const {
  return source.count() * (use == kernels::WeightUse::kTable ? 4 : 2);
}

int64_t CudaBackend::packed_bytes(const kernels::HostTensor& source, kernels::WeightUse use) const {
  const auto rows = source.values ? source.values->packed_rows() : std::nullopt;
  if (!rows || use == kernels::WeightUse::kTable || rows->row_bytes() > Staging::kSlotBytes) return 0;
  const int64_t size = source.rows() * rows->row_bytes();
  return size < weight_bytes(source, use) ? size : 0;  // columns may have a scale each
}

kernels::Matrix CudaBackend::do_load(const kernels::HostTensor& source, kernels::WeightUse use, std::byte* storage) {
  const bool is_table = use == kernels::WeightUse::kTable;
  if (packed_bytes(source, use) == 0) {
    staging().upload(source, is_table, storage, stream_);
    return {storage, is_table ? kernels::DType::kF32 : kernels::DType::kBf16, source.rows(), source.cols()};
  }
  const kernels::PackedRows rows = *source.values->packed_rows();
  const int64_t most = std::min(kUnpackBytes / rows.row_bytes(), source.rows());
  const auto memory = allocate(most * rows.row_bytes(), "packed weights");
  for (int64_t first = 0; first < source.rows(); first += most) {
    const int64_t n = std::min(most, source.rows() - first);
    staging().upload_packed(source, first, n, memory->bytes().data(), stream_);
    unpack_rows(rows, memory->bytes().data(), n, storage + first * rows.cols * 2, stream_);
  }
  return bf16_matrix(source, storage);
}

void CudaBackend::pack(const kernels::HostTensor& source, std::span<std::byte> packed) {
  staging().upload_packed(source, 0, source.rows(), packed.data(), stream_);
}

kernels::Matrix CudaBackend::unpack(const kernels::HostTensor& source, std::span<const std::byte> packed,
                                    std::span<std::byte> storage) {
  unpack_rows(*source.values->packed_rows(), packed.data(), source.rows(), storage.data(), stream_);
  return bf16_matrix(source, storage.data());
}

void CudaBackend::stage(const kernels::HostTensor& source, kernels::WeightUse use, std::span<std::byte> host) {
  if (packed_bytes(source, use) > 0) {
    staging().write_packed(source, host.data());
  } else {
    staging().write(source, use == kernels::WeightUse::kTable, host.data());
  }
}

std::shared_ptr<void> CudaBackend::pin(std::span<std::byte> memory) {
  if (memory.empty()) return nullptr;
  const cudaError_t status = cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterDefault);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // clears it
    fail(ExitCode::kOutOfMemory, "the host cannot lock " + std::to_string(memory.size() >> 20) +
                                     " MiB of memory for the weights; use fewer ranks per host");
  }
  WINNOW_CUDA_CHECK(status);
  return {memory.data(), [](void* data) { cudaHostUnregister(data); }};
}

}  // namespace winnow::cuda
