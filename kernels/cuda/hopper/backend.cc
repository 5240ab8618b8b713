// The backend's part that is Hopper's: whether its kernel is taken, and its calls.

#include <memory>
#include <span>

#include "base/error.h"
#include "kernels/cuda/attention_memory.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/hopper/attention.h"

namespace winnow::cuda {

bool CudaBackend::choose_hopper() {
  using Attention = CudaOptions::Attention;
  const bool is_named = options_.attention == Attention::kHopper;
  if (!is_named && options_.attention != Attention::kAuto) return false;
  constexpr int kHopper = 9;
  if (device_.major != kHopper) {
    if (!is_named) return false;
    fail(ExitCode::kUnavailable,
         "--attention hopper needs a GPU of compute capability 9, an H100 or H200; use "
         "--attention auto");
  }
  attention_memory_->schedule = allocate(sizeof(hopper::Schedule), "a schedule");
  WINNOW_CUDA_CHECK(cudaMemsetAsync(attention_memory_->schedule->data(), 0, sizeof(hopper::Schedule), stream_));
  return true;
}

void CudaBackend::run_hopper(std::span<const kernels::AttentionCall> calls, const kernels::HeadShape& heads) {
  attention_memory_->partial.reserve(*this, hopper::kPartialBytes, "what parts of keys give");
  hopper::attention(calls, {}, heads,
                    {.schedule = static_cast<hopper::Schedule*>(attention_memory_->schedule->data()),
                     .partial = static_cast<float*>(attention_memory_->partial.data())},
                    stream_);
}

}  // namespace winnow::cuda
