#include "jobs/sweep/executors/slurm/batch.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "jobs/sweep/executors/slurm/commands.h"
#include "jobs/sweep/executors/slurm/submission.h"
#include "jobs/sweep/failed_launch.h"

namespace winnow::slurm {
namespace {

// slurmctld may be restarted just now. The time left after USR1 is what there is to wait.
constexpr auto kBatchPatience = std::chrono::seconds(120);
constexpr auto kPause = std::chrono::seconds(2);

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

template <typename Action>
auto patiently(const Action& action) {
  const auto deadline = std::chrono::steady_clock::now() + kBatchPatience;
  while (true) {
    try {
      return action();
    } catch (const Error& error) {
      if (!sweep::is_controller_silent(error.what()) || std::chrono::steady_clock::now() > deadline) throw;
    }
    std::this_thread::sleep_for(kPause);
  }
}

class SlurmBatch : public sweep::BatchSystem {
 public:
  explicit SlurmBatch(SlurmSubmission submission)
      : submission_(std::move(submission)),
        job_(variable("SLURM_ARRAY_JOB_ID")),
        task_(variable("SLURM_ARRAY_TASK_ID")) {
    if (job_.empty()) job_ = variable("SLURM_JOB_ID");
  }

  void begin(const sweep::Attempt& attempt) override {
    if (submission_.site.requeue != RequeueMode::kSuccessor || attempt.is_last || !successor_.empty()) return;
    try {
      successor_ = queue_successor(attempt);
    } catch (const Error& error) {
      // The attempt itself may well succeed.
      std::fprintf(stderr, "winnow: warning: no successor is queued: %s\n", error.what());
    }
  }

  std::vector<std::string> launcher(const sweep::Cell& cell) override {
    const sweep::Resources& asked = cell.resources;
    std::vector<std::string> words = {"srun",
                                      "--mpi=" + submission_.site.mpi,
                                      "--kill-on-bad-exit=1",
                                      "--nodes=" + std::to_string(asked.nodes),
                                      "--ntasks=" + std::to_string(asked.ranks()),
                                      "--ntasks-per-node=" + std::to_string(asked.ranks_per_node)};
    // srun no longer takes it over from sbatch.
    const std::string cpus = variable("SLURM_CPUS_PER_TASK");
    if (!cpus.empty()) words.push_back("--cpus-per-task=" + cpus);
    words.insert(words.end(), submission_.site.srun_options.begin(), submission_.site.srun_options.end());
    words.insert(words.end(), submission_.site.container.begin(), submission_.site.container.end());
    return words;
  }

  std::string again(const sweep::Attempt& attempt) override {
    if (!successor_.empty()) return "job " + successor_ + " goes on";
    // A job that is being cancelled can be requeued, too: that is not what scancel was for.
    const std::optional<OwnState> state = ask_own_state(id());
    if (state && state->state != "RUNNING" && !state->is_timed_out) return "the job was cancelled, it is not repeated";
    // A node that lost its step daemon keeps that step's socket, and a requeued job, whose steps have the same names,
    // cannot start there any more. After a failure a job with a new number goes on.
    if (submission_.site.requeue == RequeueMode::kRequeue && attempt.was_told) {
      const std::string words = requeue();
      if (words.empty()) return "job " + id() + " is requeued";
      std::fprintf(stderr, "winnow: scontrol does not requeue job %s: %s\n", id().c_str(), one_line(words).c_str());
    }
    return "job " + (successor_ = queue_successor(attempt)) + " goes on";
  }

  void settled(const sweep::Attempt&) override {
    if (successor_.empty()) return;
    try {
      patiently([this] { cancel_tasks({successor_}, {}); });
    } catch (const Error& error) {
      // It would find the cell done, or given up.
      std::fprintf(stderr, "winnow: warning: the successor stays: %s\n", error.what());
    }
  }

  std::string job() const override { return job_; }
  std::string task() const override { return task_; }

 private:
  std::string id() const { return task_.empty() ? job_ : job_ + "_" + task_; }

  // "" when it is done, else scontrol's words. slurmctld ends this job's processes at once, scontrol among them, often
  // before it has heard that it succeeded.
  std::string requeue() const {
    try {
      patiently([this] {
        const std::optional<sweep::ProgramOutput> output = sweep::run_program(
            {"scontrol", "requeue", id()}, {.dropped_prefixes = {}, .kept = {}, .time_limit = kBatchPatience});
        if (!output) fail(ExitCode::kUnavailable, "scontrol is not on PATH");
        const bool is_ended_with_this_job = sweep::is_signalled(output->exit_code) && !output->is_timed_out;
        if (output->exit_code != 0 && !is_ended_with_this_job) fail(ExitCode::kUnavailable, output->words());
      });
    } catch (const Error& error) {
      const std::optional<OwnState> state = ask_own_state(id());
      return state && state->state != "RUNNING" ? "" : error.what();
    }
    return "";
  }

  // The same script, one task of it, once this job has failed in whatever way.
  std::string queue_successor(const sweep::Attempt& attempt) const {
    for (const SlurmArray& array : submission_.arrays) {
      const int index = attempt.task - array.first;
      if (index < 0 || index >= array.count) continue;
      return patiently([&] {
        const SbatchAnswer answer = submit_script(
            (submission_.path / array.script()).string(),
            {"--array=" + std::to_string(index), "--dependency=afternotok:" + id(), "--kill-on-invalid-dep=yes"});
        if (answer.kind == SbatchAnswer::Kind::kQueued) return answer.job;
        if (answer.kind == SbatchAnswer::Kind::kUnclear) {
          // Asked for once more, there might be two of them.
          for (const QueuedTask& task : ask_queue({array.job_name})) {
            if (task.task == index && task.array_job != job_ && task.is_live()) return task.array_job;
          }
        }
        fail(ExitCode::kUnavailable, "sbatch queues no successor: " + answer.words);
      });
    }
    fail(ExitCode::kInternal, submission_.path.string() + ": no array has task " + std::to_string(attempt.task));
  }

  SlurmSubmission submission_;
  std::string job_;
  std::string task_;
  std::string successor_;  // its job, "" when there is none
};

}  // namespace

std::unique_ptr<sweep::BatchSystem> batch_system_here(const std::filesystem::path& submission) {
  if (variable("SLURM_JOB_ID").empty()) return nullptr;
  std::optional<SlurmSubmission> found = read_slurm_submission(std::filesystem::absolute(submission));
  if (!found) return nullptr;
  return std::make_unique<SlurmBatch>(std::move(*found));
}

}  // namespace winnow::slurm
