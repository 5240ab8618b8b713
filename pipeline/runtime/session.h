// MPI for the life of a run: start, ranks and hosts, threads, agreement on errors, orderly and disorderly ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "pipeline/runtime/liveness.h"
#include "pipeline/runtime/mpi_check.h"
#include "pipeline/runtime/timeline.h"

namespace winnow::runtime {

// Cores and memory of its host that this rank may use.
struct RankResources {
  int n_threads = 1;            // share of the cores without oversubscription
  int host_cores = 1;           // that the ranks of this host may use together
  int64_t available_bytes = 0;  // memory that this rank may still take: its share of what is free on the host and in
                                // its control groups, and what the limits of the process leave
};

enum class RankGroup {
  kJob,   // all ranks
  kHost,  // those of this rank's host
};

// Thrown by agree() on every rank when a step failed on any. The line has been printed: only the code is left to
// return.
struct AgreedFailure : Unwinding {
  explicit AgreedFailure(ExitCode agreed) : code(agreed) {}
  ExitCode code;
};

// The ranks of a run: MPI_COMM_WORLD, with MPI_THREAD_MULTIPLE and MPI_ERRORS_RETURN. One per process; the destructor
// finalizes, so it is the last thing of a run to go.
//
// A process that no launcher started, or as the only rank, does without MPI, and each collective hands back what it
// was given. MPI alone would need more of the machine than the run: Open MPI starts a daemon for it, with the help of
// ssh, a folder for temporary files, shared memory and a user with a name, and ends the process itself where one of
// them is missing.
//
// A peer that dies without a word (kill -9, out of memory) must not leave the others waiting, for in MPI they would
// wait for ever:
//   - under mpirun, mpirun ends the job and names rank and host;
//   - LivenessMonitor sees it among the ranks of one host, whatever they wait in and whoever started them: srun
//     lets the other tasks of a step live unless it was told otherwise. The abort that follows reaches all hosts;
//   - a host that dies as a whole, or has one rank only, is left to the launcher: mpirun, or srun --kill-on-bad-exit=1;
//   - waits in NCCL have a deadline besides (nccl.h), for a peer that lives and does not answer.
class MpiSession {
 public:
  // Starts MPI where there may be peers. Throws Error(kInternal) when MPI cannot start or lacks threads, Error(kUsage)
  // where a launcher started several processes that MPI does not see as one job. Most failures of Open MPI's own start
  // end the process, with its lines and exit code 1.
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
  int rank(RankGroup group) const { return group == RankGroup::kJob ? rank_ : local_rank_; }
  int size(RankGroup group) const { return group == RankGroup::kJob ? size_ : local_size_; }
  bool under_mpirun() const { return under_mpirun_; }
  RankResources resources() const { return resources_; }
  // Where the time of this rank goes; steps of agree() that wait for others are Part::kWaiting.
  Timeline& timeline() const { return timeline_; }
  // Makes in_session() print the timelines of all ranks at the end.
  void show_timeline() { shows_timeline_ = true; }
  bool shows_timeline() const { return shows_timeline_; }
  // Returns the timelines of all ranks on rank 0, (ranks, kParts); else none. Collective.
  std::vector<std::vector<double>> timelines();
  // Returns "rank 1 on node07: ", or "" for a single rank.
  std::string prefix() const;

  // Runs `step` on this rank and waits for all others. When it throws anywhere, the first rank that failed prints its
  // line and every rank throws AgreedFailure with that rank's code. Collective.
  void agree(const std::function<void()>& step);
  // Runs `step` on rank 0 only, else like agree(). Collective.
  void agree_on_root(const std::function<void()>& step);
  // Runs `step`, in which ranks wait for each other: one that fails could not tell them and ends the job at once, as
  // end_job() does. Then, without peers, throws AgreedFailure. Nothing is unwound before, as GPU memory that a stuck
  // peer still works on could not be freed.
  void run_together(const std::function<void()>& step);
  // Ends the whole job for the exception that is being handled: prints the line and, with peers, MPI_Aborts with its
  // code, so that nobody waits for this rank. Without peers it returns the code.
  ExitCode end_job() const;

  // The collectives over plain data follow. Those that may wait for a rank that computes do so without using a core:
  // the first two broadcasts and gather(double).
  void broadcast(std::vector<int64_t>& values);
  void broadcast(std::string& text);
  std::vector<std::string> gather(const std::string& text);          // on rank 0: of every rank, in order; else empty
  std::vector<double> gather(double value);                          // on all ranks
  std::vector<std::string> gather_on_host(const std::string& text);  // on all ranks of the host, by local rank
  void broadcast(RankGroup group, std::span<std::byte> bytes);       // from the group's rank 0
  int64_t minimum(int64_t value);
  int64_t maximum(int64_t value);
  // Sum over the ranks on rank 0, in place; exact where at most one rank has a value other than 0.
  void reduce_to_root(std::span<double> values);
  void reduce_to_root(std::span<float> values);

 private:
  void find_host();
  void find_resources();
  void watch_peers();

  mutable Timeline timeline_;  // the time passes for those who only look, too
  bool shows_timeline_ = false;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  bool under_mpirun_ = false;
  bool has_mpi_ = false;  // whether MPI was started
  std::string host_;
  RankResources resources_;
  MPI_Comm host_comm_ = MPI_COMM_NULL;      // the ranks of this host, by rank
  std::unique_ptr<LivenessMonitor> peers_;  // null without any on this host
};

// Exit code and one line of the exception that is being handled.
struct CaughtError {
  ExitCode code = ExitCode::kInternal;
  std::string message;
};
CaughtError describe_current_exception();

// Calls `run` in a session of its own, on every rank. Returns its exit code, or that of what it throws, whose line is
// printed.
ExitCode in_session(const std::function<ExitCode(MpiSession&)>& run);

}  // namespace winnow::runtime
