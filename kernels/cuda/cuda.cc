#include "kernels/cuda/cuda.h"

#include <cuda_runtime.h>

#include "base/error.h"
#include "base/strings.h"
#include "kernels/cuda/cuda_backend.h"

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

}  // namespace winnow::cuda
