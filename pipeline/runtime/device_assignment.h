// Which GPU each rank of a host takes, and how NCCL is told: pure functions of what the ranks see.
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

// visible[r]: UUIDs of the GPUs that local rank r sees, by device number. Each rank takes the GPU of its own number,
// counted round, if that is free, else the first free one that it sees; where all are taken it shares the former. So a
// launcher may show every rank all GPUs (mpirun) or its own only (Slurm's --gpus-per-task): what counts is whether two
// ranks end up on the same GPU. Entry r is that of local rank r.
std::vector<GpuChoice> choose_gpus(const std::vector<std::vector<std::string>>& visible);

// What NCCL needs in the environment of a rank, as name and value, before its first call.
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
