// What a build for no GPU of compute capability 9 answers.
#include <span>

#include "base/error.h"
#include "kernels/cuda/cuda_backend.h"

namespace winnow::cuda {

bool CudaBackend::choose_hopper() {
  if (options_.attention != CudaOptions::Attention::kHopper) return false;
  fail(ExitCode::kUnavailable,
       "--attention hopper needs a build with 90 in WINNOW_CUDA_ARCHITECTURES; use --attention auto");
}

void CudaBackend::run_hopper(std::span<const kernels::AttentionCall> /*calls*/, const kernels::HeadShape& /*heads*/) {
  fail(ExitCode::kInternal, "built without Hopper's attention");
}

}  // namespace winnow::cuda
