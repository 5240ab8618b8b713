#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/strings.h"
#include "kernels/cuda/attention_memory.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/cudnn_attention.h"

namespace winnow::cuda {

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::vector<std::string> cuda_device_uuids() {
  std::vector<std::string> uuids;
  for (int device = 0; device < cuda_device_count(); ++device) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
      cudaGetLastError();  // clears it: whoever uses the device will see it again
      return {};
    }
    uuids.push_back(to_hex({static_cast<const char*>(properties.uuid.bytes), sizeof properties.uuid.bytes}));
  }
  return uuids;
}

std::unique_ptr<kernels::Ops> make_cuda_backend(const CudaOptions& options) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    fail(ExitCode::kUnavailable, std::string("no usable GPU: ") +
                                     (status == cudaSuccess ? "none found" : cudaGetErrorString(status)) +
                                     "; use --device cpu");
  }
  return std::make_unique<CudaBackend>(options);
}

// Zeroed device memory, counted by its backend. It comes from CUDA's pool in the order of the stream, so that the
// buffers of one sweep are those of the one before and nothing waits.
class DeviceBuffer final : public kernels::Buffer {
 public:
  DeviceBuffer(CudaBackend& ops, int64_t size_bytes, const char* what) : ops_(ops), size_bytes_(size_bytes) {
    const auto size = static_cast<std::size_t>(std::max<int64_t>(size_bytes, 1));
    cudaError_t status = cudaMallocAsync(&data_, size, ops.stream_);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // clears it
      ops.release_unused();
      status = cudaMallocAsync(&data_, size, ops.stream_);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // clears it
      fail(ExitCode::kOutOfMemory, "out of GPU memory: " + std::to_string(size_bytes >> 20) + " MiB for " + what +
                                       "; lower --max-memory, so that fewer lanes go together");
    }
    WINNOW_CUDA_CHECK(status);
    WINNOW_CUDA_CHECK(cudaMemsetAsync(data_, 0, static_cast<std::size_t>(size_bytes), ops.stream_));
    ops_.allocated_bytes_ += size_bytes_;
    ops_.peak_allocated_bytes_ = std::max(ops_.peak_allocated_bytes_, ops_.allocated_bytes_);
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() override {
    ops_.allocated_bytes_ -= size_bytes_;
    cudaFreeAsync(data_, ops_.stream_);
  }
  void* data() override { return data_; }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  CudaBackend& ops_;
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

// Page-locked memory of the host: the device copies from and to it on its own.
class HostBuffer final : public kernels::Buffer {
 public:
  HostBuffer(CudaBackend& ops, int64_t size_bytes, const char* what) : ops_(ops), size_bytes_(size_bytes) {
    const cudaError_t status = cudaMallocHost(&data_, static_cast<std::size_t>(std::max<int64_t>(size_bytes, 1)));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // clears it
      fail(ExitCode::kOutOfMemory, "out of page-locked host memory: " + std::to_string(size_bytes >> 20) + " MiB for " +
                                       what + "; use fewer ranks per host");
    }
    WINNOW_CUDA_CHECK(status);
    std::memset(data_, 0, static_cast<std::size_t>(size_bytes));
  }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() override {
    cudaStreamSynchronize(ops_.stream_);  // a copy may be under way
    cudaFreeHost(data_);
  }
  void* data() override { return data_; }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  CudaBackend& ops_;
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

CudaBackend::CudaBackend(const CudaOptions& options)
    : options_(options), attention_memory_(std::make_unique<AttentionMemory>()) {
  WINNOW_CUDA_CHECK(cudaSetDevice(options.device));
  WINNOW_CUDA_CHECK(cudaGetDeviceProperties(&device_, options.device));
  WINNOW_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  WINNOW_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool_, options.device));
  uint64_t keep_all = UINT64_MAX;
  WINNOW_CUDA_CHECK(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all));
  WINNOW_CUDA_CHECK(cublasLtCreate(&cublas_));
}

CudaBackend::~CudaBackend() {
  cudnn_.reset();
  attention_memory_.reset();
  experts_memory_.reset();
  staging_.reset();
  cublas_workspace_.reset();
  products_.clear();
  for (const cudaEvent_t event : marks_) cudaEventDestroy(event);
  cublasLtDestroy(cublas_);
  cudaStreamSynchronize(stream_);
  cudaMemPoolTrimTo(pool_, 0);
  cudaStreamDestroy(stream_);
}

std::string CudaBackend::description() const {
  const std::string no_cudnn = why_not_cudnn_.empty() ? "" : ", no cuDNN (" + why_not_cudnn_ + ")";
  return "cuda, bfloat16, " + std::string(device_.name) + ", cuBLASLt " + std::to_string(cublasLtGetVersion()) +
         no_cudnn;
}

void CudaBackend::require_shape(int64_t hidden, int64_t ffn, const kernels::HeadShape& heads) const {
  const auto require = [](bool holds, const char* what, int64_t value) {
    if (holds) return;
    fail(ExitCode::kUnavailable, std::string("the GPU backend takes ") + what + ", the model has " +
                                     std::to_string(value) + "; use --device cpu");
  };
  // Rows are read eight values at a time, heads in halves, and a norm holds a row in a warp's registers.
  require(hidden % 8 == 0 && hidden <= kMaxHidden, "a hidden_size that is a multiple of 8, up to 8192", hidden);
  require(ffn % 8 == 0, "an intermediate_size that is a multiple of 8", ffn);
  require(heads.head_dim % 8 == 0 && heads.head_dim <= 256, "a head_dim that is a multiple of 8, up to 256",
          heads.head_dim);
}

std::optional<int64_t> CudaBackend::free_bytes() const {
  std::size_t free = 0;
  std::size_t total = 0;
  WINNOW_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  // What the pool keeps and nobody uses is free too.
  uint64_t reserved = 0;
  uint64_t used = 0;
  WINNOW_CUDA_CHECK(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved));
  WINNOW_CUDA_CHECK(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used));
  return static_cast<int64_t>(free + reserved - used);
}

void CudaBackend::release_unused() {
  synchronize();
  WINNOW_CUDA_CHECK(cudaMemPoolTrimTo(pool_, 0));
}

int64_t CudaBackend::kv_bytes(int64_t n_rows, const kernels::HeadShape& heads) const {
  return n_rows * 2 * heads.kv_dim() * 2;
}

int64_t CudaBackend::workspace_bytes(int64_t n_rows, int64_t /*hidden*/, int64_t vocab,
                                     const kernels::HeadShape& heads) const {
  const int64_t attention = kv_bytes(n_rows, heads) + n_rows * (heads.q_dim() * 2 + 2 * heads.n_heads * 4);
  return kProductWorkspaceBytes + token_nll_bytes(vocab) + attention + attention_lse_bytes(heads);
}

std::unique_ptr<kernels::Buffer> CudaBackend::allocate(int64_t size_bytes, const char* what) {
  return std::make_unique<DeviceBuffer>(*this, size_bytes, what);
}

std::unique_ptr<kernels::Buffer> CudaBackend::upload(std::span<const int32_t> values, const char* what) {
  auto buffer = allocate(static_cast<int64_t>(values.size_bytes()), what);
  // From pageable memory: the call returns when the values have been taken over.
  WINNOW_CUDA_CHECK(
      cudaMemcpyAsync(buffer->data(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_));
  return buffer;
}

void CudaBackend::do_copy_rows(kernels::ConstRows from, kernels::Rows to) {
  WINNOW_CUDA_CHECK(cudaMemcpyAsync(to.data, from.data, from.bytes().size(), cudaMemcpyDeviceToDevice, stream_));
}

std::unique_ptr<kernels::Buffer> CudaBackend::allocate_host(int64_t size_bytes, const char* what) {
  return std::make_unique<HostBuffer>(*this, size_bytes, what);
}

void CudaBackend::do_copy_async(std::span<const std::byte> from, std::span<std::byte> to) {
  WINNOW_CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), from.size(), cudaMemcpyDefault, stream_));
}

void CudaBackend::synchronize() { WINNOW_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

void CudaBackend::record_event(int64_t n) {
  while (static_cast<int64_t>(marks_.size()) <= n) WINNOW_CUDA_CHECK(cudaEventCreate(&marks_.emplace_back()));
  WINNOW_CUDA_CHECK(cudaEventRecord(marks_[static_cast<std::size_t>(n)], stream_));
}

double CudaBackend::elapsed_seconds(int64_t first, int64_t second) {
  const cudaEvent_t begin = marks_[static_cast<std::size_t>(first)];
  const cudaEvent_t end = marks_[static_cast<std::size_t>(second)];
  float milliseconds = 0.0F;
  WINNOW_CUDA_CHECK(cudaEventSynchronize(end));
  WINNOW_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace winnow::cuda
