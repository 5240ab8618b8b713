// Exchanges what ranks share besides work units: the weights of a host, and the sums of their tables.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/ops.h"
#include "model/weights.h"
#include "pipeline/runtime/device_assignment.h"
#include "pipeline/runtime/nccl.h"
#include "pipeline/runtime/session.h"

namespace winnow::runtime {

// Report on how this rank got its weights.
struct LoadReport {
  int64_t size_bytes = 0;  // of the backend's memory that were filled
  double seconds = 0.0;
  bool was_read_here = true;  // by this rank, not by another of its host
};

// Works over NCCL where there are several ranks, all of them compute on GPUs and the build has NCCL; else over MPI. The
// figures are the same, bit for bit: a sum has at most one term that is not 0.
class Exchange {
 public:
  // Connects the ranks, and tries the connection: a network that does not work shows here, and not after hours of
  // measuring. Collective. Throws AgreedFailure.
  Exchange(MpiSession& session, kernels::Ops& ops, const GpuChoice& gpu);

  // Returns "nccl 2.28.9", "mpi", or "none" for a single rank; for logs and provenance.
  const std::string& reduction() const { return reduction_; }
  // Loads weights that were made with Loading::kLater. With NCCL the first rank of each host reads the checkpoint and
  // the others are sent each layer while it reads the next. Collective. Throws AgreedFailure.
  LoadReport load(model::ModelWeights& weights);
  // Sum over the ranks in place; the sum is right on rank 0. Collective. Throw AgreedFailure.
  void sum(std::span<double> values);
  void sum(std::span<float> values);

 private:
  MpiSession& session_;
  std::string reduction_;
  std::unique_ptr<NcclComm> job_;   // null: over MPI
  std::unique_ptr<NcclComm> host_;  // of several hosts, until the weights are there; null for a rank alone on its own
};

}  // namespace winnow::runtime
