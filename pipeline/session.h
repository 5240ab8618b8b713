// MPI for the life of a run: start, ranks and hosts, threads, agreement on errors, orderly and disorderly ends.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace winnow {

// What this rank may use of its host.
struct RankResources {
  int n_threads = 1;            // share of the cores without oversubscription
  int n_cores = 1;              // in this rank's affinity mask, or its share of a container's processor quota
  int host_cores = 1;           // that the ranks of this host may use together
  int64_t available_bytes = 0;  // memory of the host (or its container) that is free now / ranks on the host
};

// Thrown by agree() on every rank when a step failed on any. The line has been printed: only the code is left to
// return.
struct AgreedFailure {
  ExitCode code = ExitCode::kInternal;
};

// MPI_COMM_WORLD, with MPI_THREAD_MULTIPLE and MPI_ERRORS_RETURN. Works without mpirun (one rank). One per process;
// the destructor finalizes, so it is the last thing of a run to go.
class MpiSession {
 public:
  // Throws Error(kInternal) when MPI cannot start or lacks threads, Error(kUsage) where a launcher started several
  // processes that MPI does not see as one job.
  MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  ~MpiSession();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  const std::string& host() const { return host_; }
  int local_rank() const { return local_rank_; }  // among the ranks of this host
  int local_size() const { return local_size_; }
  bool under_mpirun() const { return under_mpirun_; }
  RankResources resources() const { return resources_; }
  // "rank 1 on node07: ", or "" for a single rank.
  std::string prefix() const;

  // Runs `step` on this rank and waits for all others. When it throws anywhere, the first rank that failed prints its
  // line and every rank throws AgreedFailure with that rank's code. Collective.
  void agree(const std::function<void()>& step);
  // Runs `step` on rank 0 only, else like agree(). Collective.
  void agree_on_root(const std::function<void()>& step);
  // Ends the whole job for the exception that is being handled: prints the line and, with peers, MPI_Aborts with its
  // code, so that nobody waits for this rank. Without peers it returns the code.
  ExitCode end_job() const;

  // Collectives over plain data. All but reduce wait without using a core: a peer may compute on it.
  void broadcast(std::vector<int64_t>& values);
  void broadcast(std::string& text);
  std::vector<std::string> gather(const std::string& text);  // on rank 0: of every rank, in order; else empty
  std::vector<double> gather(double value);                  // on all ranks
  int64_t minimum(int64_t value);
  int64_t maximum(int64_t value);
  // Sum over ranks on rank 0, in place; exact where at most one rank has a value other than 0.
  void reduce_to_root(std::span<double> values);
  void reduce_to_root(std::span<float> values);

 private:
  void find_resources();

  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  bool under_mpirun_ = false;
  std::string host_;
  RankResources resources_;
};

// Exit code and one line of the exception that is being handled.
struct CaughtError {
  ExitCode code = ExitCode::kInternal;
  std::string message;
};
CaughtError describe_current_exception();

}  // namespace winnow
