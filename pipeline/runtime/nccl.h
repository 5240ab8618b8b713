// A communicator of NCCL, which sends weights to the ranks of a host and sums tables.
//
// Every wait ends: it polls for completion and for errors that NCCL has noticed, and gives up after the deadline: 120
// s, or WINNOW_NCCL_DEADLINE seconds. Then the communicator is aborted and the error says what was waited for, in
// NCCL's words. A launcher and LivenessMonitor (liveness.h) see a dead peer sooner; the deadline is for one that lives
// and does not answer.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/ops.h"
#include "pipeline/runtime/session.h"

namespace winnow::runtime {

class NcclComm {
 public:
  // Returns true if this build has NCCL.
  static bool is_built();
  // Returns the version of the library in use, as "2.28.9"; "" in a build without NCCL.
  static std::string version();
  // Makes the communicator of a group of ranks that all compute on the GPU. Collective over the job: a rank that is
  // alone in its group gets none. The environment of nccl_environment() (device_assignment.h) must be set. Throws
  // AgreedFailure.
  static std::unique_ptr<NcclComm> make(MpiSession& session, RankGroup group, kernels::Ops& ops);

  // Frees it in agreement with the group, which must destroy theirs too; without agreement after a failure or during an
  // exception. Returns within seconds either way. It must go before the backend and before MPI.
  ~NcclComm();
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  // Sends size_bytes of GPU memory from the group's rank 0 to all, after everything that the backend has queued.
  // Returns when it is queued and the broadcast before is over, so that the sender prepares one while another is on its
  // way. Collective, like all below. They throw Error(kInternal) for a failure of NCCL and at the deadline; after that
  // the communicator is of no use.
  void broadcast(void* data, int64_t size_bytes);
  // Waits for all broadcasts.
  void finish();
  // Replace values (host memory) by their sums over the group, on all ranks; exact where at most one rank has a value
  // other than 0.
  void sum(std::span<double> values);
  void sum(std::span<float> values);

 private:
  struct State;
  explicit NcclComm(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace winnow::runtime
