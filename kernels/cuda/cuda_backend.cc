#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/attention_memory.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/staging.h"
#include "kernels/error.h"

namespace winnow {

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    fail(ExitCode::kUnavailable, std::string("no usable GPU: ") +
                                     (status == cudaSuccess ? "none found" : cudaGetErrorString(status)) +
                                     "; use --device cpu");
  }
  return std::make_unique<cuda::CudaBackend>(options);
}

namespace cuda {

// Zeroed device memory, counted by its backend.
class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(CudaBackend& backend, int64_t size_bytes, const char* what)
      : backend_(backend), size_bytes_(size_bytes) {
    const cudaError_t status = cudaMalloc(&data_, static_cast<std::size_t>(std::max<int64_t>(size_bytes, 1)));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // clears it
      fail(ExitCode::kOutOfMemory, "out of GPU memory: " + std::to_string(size_bytes >> 20) + " MiB for " + what +
                                       "; lower --max-memory, so that fewer lanes go together");
    }
    WINNOW_CHECK(status);
    WINNOW_CHECK(cudaMemsetAsync(data_, 0, static_cast<std::size_t>(size_bytes), backend.stream_));
    backend_.allocated_bytes_ += size_bytes_;
    backend_.peak_allocated_bytes_ = std::max(backend_.peak_allocated_bytes_, backend_.allocated_bytes_);
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() override {
    backend_.allocated_bytes_ -= size_bytes_;
    cudaFree(data_);  // waits for work that uses it
  }
  void* data() override { return data_; }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  CudaBackend& backend_;
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

CudaBackend::CudaBackend(const CudaOptions& options)
    : options_(options), attention_memory_(std::make_unique<AttentionMemory>()) {
  WINNOW_CHECK(cudaSetDevice(options.device));
  WINNOW_CHECK(cudaGetDeviceProperties(&device_, options.device));
  WINNOW_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  WINNOW_CHECK(cublasLtCreate(&cublas_));
}

CudaBackend::~CudaBackend() {
  cudnn_.reset();
  attention_memory_.reset();
  staging_.reset();
  cublas_workspace_.reset();
  products_.clear();
  cublasLtDestroy(cublas_);
  cudaStreamDestroy(stream_);
}

std::string CudaBackend::description() const {
  return "cuda, bfloat16, " + std::string(device_.name) + ", cuBLASLt " + std::to_string(cublasLtGetVersion());
}

std::string CudaBackend::attention_path(const HeadShape& heads) {
  choose_attention(heads);
  return cudnn_ ? "cuda-cudnn-" + CudnnAttention::version() : "cuda-own";
}

std::optional<int64_t> CudaBackend::free_bytes() const {
  std::size_t free = 0;
  std::size_t total = 0;
  WINNOW_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

int64_t CudaBackend::kv_bytes(int64_t n_rows, const HeadShape& heads) const { return n_rows * 2 * heads.kv_dim() * 2; }

int64_t CudaBackend::workspace_bytes(int64_t n_rows, int64_t /*hidden*/, int64_t vocab, const HeadShape& heads) const {
  const int64_t attention = kv_bytes(n_rows, heads) + n_rows * (heads.q_dim() * 2 + 2 * heads.n_heads * 4);
  return kProductWorkspaceBytes + token_nll_bytes(vocab) + attention;
}

std::unique_ptr<Buffer> CudaBackend::allocate(int64_t size_bytes, const char* what) {
  return std::make_unique<DeviceBuffer>(*this, size_bytes, what);
}

void CudaBackend::copy(const void* from, void* to, int64_t n_rows, int64_t cols) {
  WINNOW_CHECK(
      cudaMemcpyAsync(to, from, static_cast<std::size_t>(n_rows * cols * 2), cudaMemcpyDeviceToDevice, stream_));
}

void CudaBackend::synchronize() { WINNOW_CHECK(cudaStreamSynchronize(stream_)); }

}  // namespace cuda
}  // namespace winnow
