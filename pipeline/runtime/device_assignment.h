// Chooses the GPU of each rank of a host, and NCCL's settings for that: pure functions of what the ranks see.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace winnow::runtime {

// The GPU of one rank.
struct GpuChoice {
  int device = -1;    // its number among those that the rank sees; -1: it sees none
  int n_sharers = 0;  // ranks of the host that take this GPU, itself included
  int host_ranks = 1;
  int host_gpus = 0;  // different ones that the ranks of the host see

  bool is_shared() const { return n_sharers > 1; }
};

// Returns the choice of each local rank. Each takes the GPU of its own number, counted round, if that is free, else the
// first free one that it sees; where all are taken it shares the former. So a launcher may show every rank all GPUs
// (mpirun) or its own only (Slurm's --gpus-per-task). visible[r]: UUIDs of the GPUs that local rank r sees, by device
// number.
std::vector<GpuChoice> choose_gpus(const std::vector<std::vector<std::string>>& visible);

// Place of a rank, on which NCCL's environment depends.
struct NcclPlace {
  std::string host;
  int rank = 0;
  bool shares_gpu = false;          // this rank, with another
  bool is_any_shared = false;       // by any ranks of the job
  bool is_one_host = false;         // that all ranks are on
  bool interface_is_given = false;  // NCCL_SOCKET_IFNAME is set already
};
std::vector<std::pair<std::string, std::string>> nccl_environment(const NcclPlace& place);

}  // namespace winnow::runtime
