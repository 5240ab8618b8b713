// Calls Slurm's commands and reads their answers: one call each, however many cells.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "jobs/sweep/executors/slurm/sbatch_answer.h"

namespace winnow::slurm {

// One task of an array as squeue shows it.
struct QueuedTask {
  std::string array_job;  // "1234"
  int task = 0;
  std::string state;  // "RUNNING"
  std::string name;   // of the job
  std::string reason;

  std::string id() const { return array_job + "_" + std::to_string(task); }
  // Returns true if it runs, or will run without anybody's doing.
  bool is_live() const;
  bool is_running() const;
};

// Format of squeue that parse_queue() reads.
inline constexpr const char* kQueueFormat = "%F|%K|%T|%j|%r";
// Parses lines of squeue; what does not look so (other jobs, messages) is passed over.
std::vector<QueuedTask> parse_queue(const std::string& text);
// Returns the tasks of jobs with these names, in one call. Throws Error(kUnavailable) with squeue's words.
std::vector<QueuedTask> ask_queue(const std::vector<std::string>& job_names);

// State of the running job itself.
struct OwnState {
  std::string state;          // "RUNNING"; "COMPLETING" when it is being ended
  bool is_timed_out = false;  // it has had all of its time
};
// Asks squeue for it; none where squeue does not know the job, or does not answer.
std::optional<OwnState> ask_own_state(const std::string& job);

// Returns how many tasks an array may have: MaxArraySize, or Slurm's default where scontrol does not say.
int max_array_size();

// Calls sbatch. `options` come before the script and win over those in it. Throws Error(kUnavailable) where there is no
// sbatch.
SbatchAnswer submit_script(const std::string& script, const std::vector<std::string>& options);
// Cancels tasks, pending ones first: a successor must not start when what it waits for is gone. Throws
// Error(kUnavailable).
void cancel_tasks(const std::vector<std::string>& pending, const std::vector<std::string>& others);

// Returns the seconds of a time limit as Slurm reads it ("90", "1:30:00", "2-12"); none for what is not one.
std::optional<long> slurm_seconds(const std::string& time);

// Returns a word for a `#SBATCH` line as sbatch reads it back: in double quotes where it has more than letters, digits
// and a few marks. Throws Error(kUsage) for a line feed, which has no form there.
std::string sbatch_quoted(const std::string& word);

}  // namespace winnow::slurm
