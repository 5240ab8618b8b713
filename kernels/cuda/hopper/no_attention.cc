// What a build for no GPU of compute capability 9 answers.
#include "base/error.h"
#include "kernels/cuda/hopper/attention.h"

namespace winnow::cuda::hopper {

bool has_attention(int /*device*/) { return false; }

void attention(std::span<const kernels::AttentionCall> /*calls*/, std::span<const LseRows> /*lse*/,
               const kernels::HeadShape& /*heads*/, Schedule* /*schedule*/, cudaStream_t /*stream*/) {
  fail(ExitCode::kInternal, "built without Hopper's attention");
}

}  // namespace winnow::cuda::hopper
