// What a build without NCCL answers: nobody gets a communicator.
#include "base/error.h"
#include "pipeline/runtime/nccl.h"

namespace winnow::runtime {

struct NcclComm::State {};

bool NcclComm::is_built() { return false; }

std::string NcclComm::version() { return ""; }

std::unique_ptr<NcclComm> NcclComm::make(MpiSession& /*session*/, RankGroup /*group*/, kernels::Ops& /*backend*/) {
  fail(ExitCode::kInternal, "this winnow was built without NCCL");
}

NcclComm::NcclComm(std::unique_ptr<State> state) : state_(std::move(state)) {}
NcclComm::~NcclComm() = default;
void NcclComm::broadcast(void* /*data*/, int64_t /*size_bytes*/) {}
void NcclComm::finish() {}
void NcclComm::sum(std::span<double> /*values*/) {}
void NcclComm::sum(std::span<float> /*values*/) {}

}  // namespace winnow::runtime
