// What a build without CUDA answers.

#include "base/error.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"

namespace winnow::cuda {

int cuda_device_count() { return 0; }

std::vector<std::string> cuda_device_uuids() { return {}; }

std::unique_ptr<kernels::Ops> make_cuda_backend(const CudaOptions& /*options*/) {
  fail(ExitCode::kUnavailable,
       "this winnow was built without CUDA; build with -DWINNOW_CUDA=ON where nvcc is installed, or use --device cpu");
}

}  // namespace winnow::cuda
