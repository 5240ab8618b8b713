// What a build without cuDNN's headers answers: the own kernel does everything.
#include "base/error.h"
#include "kernels/cuda/cudnn_attention.h"

namespace winnow::cuda {

struct CudnnAttention::State {};

CudnnAttention::CudnnAttention(std::unique_ptr<State> state) : state_(std::move(state)) {}
CudnnAttention::~CudnnAttention() = default;

std::unique_ptr<CudnnAttention> CudnnAttention::open(int /*device*/, cudaStream_t /*stream*/, std::string& reason) {
  reason = "this winnow was built without cuDNN's headers";
  return nullptr;
}

std::string CudnnAttention::version() const { return ""; }
bool CudnnAttention::supports(const AttentionShape& /*shape*/, std::string& /*reason*/) { return false; }
void CudnnAttention::prepare(const AttentionShape& /*shape*/) {}
void CudnnAttention::run(const AttentionShape& /*shape*/, const AttentionPointers& /*p*/, float /*scale*/) {
  fail(ExitCode::kInternal, "built without cuDNN");
}

}  // namespace winnow::cuda
