// NVIDIA GPUs as devices. cuda_backend.cc defines what is here; in a build without CUDA no_cuda.cc does, and answers
// that there are none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace winnow::cuda {

struct CudaOptions {
  // Which kernels compute attention: Hopper's own on such a GPU, else cuDNN's where it has a plan for the model, else
  // the own one of all GPUs; or one of them by name, or an error.
  enum class Attention { kAuto, kCudnn, kBuiltin, kHopper };
  int device = 0;
  Attention attention = Attention::kAuto;
  kernels::DType residual = kernels::DType::kBf16;  // kBf16 or kF32
};
// Returns the number of usable devices: 0 also where this build has no CUDA.
int cuda_device_count();
// Returns their UUIDs, in the order of device numbers: two processes that see the same UUID see the same GPU. Empty
// where cuda_device_count() is 0 or a device does not answer.
std::vector<std::string> cuda_device_uuids();
// Returns the operations of a GPU. Throws Error(kUnavailable) with the reason where there is no usable device.
std::unique_ptr<kernels::Ops> make_cuda_backend(const CudaOptions& options);

}  // namespace winnow::cuda
