#include "jobs/sweep/run_cell.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <thread>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/node.h"
#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/failed_launch.h"
#include "jobs/sweep/files.h"
#include "pipeline/runtime/launch.h"
#include "pipeline/runtime/lock.h"
#include "results/calibration/store.h"
#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLockName = "cell.lock";
constexpr int kInterruptedCode = static_cast<int>(ExitCode::kInterrupted);
constexpr int kInternalCode = static_cast<int>(ExitCode::kInternal);
constexpr auto kLongestPause = std::chrono::minutes(1);

void say(const Cell& cell, const std::string& what) {
  std::fprintf(stderr, "winnow: cell %s: %s\n", one_line(cell.name).c_str(), one_line(what).c_str());
}

// Null: somebody runs the cell. `status` takes the lock for a moment when it looks, hence several tries.
std::unique_ptr<runtime::RunLock> lock_cell(const Cell& cell, std::string& holder) {
  for (int i = 0; i < 10; ++i) {
    try {
      return std::make_unique<runtime::RunLock>(cell.run_directory, host_name(), kLockName);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kInterrupted) throw;
      holder = error.what();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return nullptr;
}

void compute_anew(calibration::Results& results, uint64_t seed) {
  calibration::StatisticsOptions settings = results.statistics.options;
  settings.seed = seed;
  results.statistics = calibration::compute_statistics(results.calibration, results.controls, settings);
}

void compute_anew(evaluation::EvaluationResults& results, uint64_t seed) {
  evaluation::EvaluationOptions settings = results.statistics.options;
  settings.seed = seed;
  results.statistics = evaluation::compute_evaluation(results.table, settings);
}

// Statistics with other seeds than the measurement's 0: the measurement is read, not repeated.
template <typename Read, typename Write>
void write_seeds(const Cell& cell, Read read, Write write) {
  std::optional<decltype(read(cell.run_directory))> results;
  for (const uint64_t seed : cell.seeds) {
    const fs::path path = cell.results(seed);
    if (seed == 0 || fs::exists(path)) continue;
    if (!results) results = read(cell.results(0));
    compute_anew(*results, seed);
    results->provenance.set("statistics_command", command_line(), "command line that computed the statistics anew");
    make_directories(path.parent_path());
    write(path, *results);
  }
}

// The figures of a search have no seed but that of its run.
void write_seeds(const Cell& cell) {
  if (cell.is_calibration()) write_seeds(cell, calibration::read_results, calibration::write_results);
  if (cell.verb() == "evaluate") write_seeds(cell, evaluation::read_evaluation, evaluation::write_evaluation);
}

class CellRun {
 public:
  CellRun(fs::path submission, int task, Cell cell, BatchSystem* batch, std::chrono::milliseconds launch_pause)
      : submission_(std::move(submission)),
        task_(task),
        cell_(std::move(cell)),
        batch_(batch),
        launch_pause_(launch_pause) {
    make_directories(cell_.run_directory / "attempts");
  }

  int run() {
    std::string holder;
    const std::unique_ptr<runtime::RunLock> lock = lock_cell(cell_, holder);
    if (!lock) {
      say(cell_, "is being run already: " + holder);
      return 0;
    }
    const std::vector<int> attempts = list_attempts(cell_.run_directory);
    number_ = attempts.empty() ? 0 : attempts.back();
    count_of_submission(attempts);
    while (!is_done(cell_)) {
      if (fs::exists(cell_.results(0))) {
        write_seeds(cell_);
        continue;
      }
      if (of_submission_ >= cell_.max_attempts || failed_launches_ >= kMostFailedLaunches) return give_up();
      const int code = attempt();
      if (code == 0) {
        write_seeds(cell_);
        break;
      }
      if (const std::optional<int> end = after_failure(code)) return *end;
    }
    if (batch_ != nullptr) batch_->settled(this_attempt());
    if (batch_ != nullptr) say(cell_, "done");  // the local executor says so itself
    return 0;
  }

 private:
  void count_of_submission(const std::vector<int>& attempts) {
    for (const int number : attempts) {
      const auto json = read_json(attempt_record(cell_.run_directory, number));
      if (!json) continue;
      const AttemptRecord record = AttemptRecord::from_json(*json);
      if (record.submission == submission_.filename().string()) {
        ++(record.failed_launches > 0 ? failed_launches_ : of_submission_);
      }
    }
  }

  Attempt this_attempt() const {
    return {.submission = submission_,
            .task = task_,
            .number = of_submission_,
            .is_last = of_submission_ >= cell_.max_attempts,
            .was_told = code_ == kInterruptedCode};
  }

  std::vector<std::string> command() const {
    std::vector<std::string> words;
    if (batch_ != nullptr) {
      words = batch_->launcher(cell_);
    } else if (cell_.resources.ranks() > 1) {
      // Unbound: ranks of cells that run at once would all be bound to the same cores.
      words = {"mpirun", "-n", std::to_string(cell_.resources.ranks()), "--oversubscribe", "--bind-to", "none"};
    }
    words.push_back(own_executable().string());
    words.insert(words.end(), cell_.calibrate_arguments.begin(), cell_.calibrate_arguments.end());
    return words;
  }

  // Returns its exit code, 0 only where the result is there; what cannot be started counts as an attempt, too.
  int attempt() {
    ++number_;
    ++of_submission_;
    if (batch_ != nullptr) batch_->begin(this_attempt());
    AttemptRecord record{.attempt = number_,
                         .submission = submission_.filename().string(),
                         .of_submission = of_submission_,
                         .max_attempts = cell_.max_attempts,
                         .host = host_name(),
                         .started = utc_now(),
                         .ended = "",
                         .exit_code = std::nullopt,
                         .error = "",
                         .is_stopped = false,
                         .failed_launches = 0,
                         .slurm_job = batch_ == nullptr ? "" : batch_->job(),
                         .slurm_task = batch_ == nullptr ? "" : batch_->task(),
                         .command = command()};
    const fs::path log = attempt_log(cell_.run_directory, number_);
    const auto write = [&] {
      write_file_atomically(attempt_record(cell_.run_directory, number_), dump_json(record.to_json(), 2));
    };
    write();
    int code = 0;
    try {
      const bool is_by_mpirun = batch_ == nullptr && cell_.resources.ranks() > 1;
      const auto environment =
          is_by_mpirun ? runtime::environment_for_mpirun() : decltype(runtime::environment_for_mpirun()){};
      code = wait_for(start_child(record.command, {.log = log, .environment = environment}));
      judge_end(record, log, code);
    } catch (const Error& error) {
      code = static_cast<int>(error.code());
      record.error = error.what();
    }
    record.ended = utc_now();
    record.exit_code = code;
    record.is_stopped = is_stopped() && is_end_of_stop(code);
    write();
    error_ = record.error;
    code_ = code;
    is_failed_launch_ = record.failed_launches > 0;
    return code;
  }

  // Says why an attempt that has no result ended, and takes a failed launch out of the count. srun returns 0 for some
  // of them, which is no success.
  void judge_end(AttemptRecord& record, const fs::path& log, int& code) {
    if (code == 0 && fs::exists(cell_.results(0))) return;
    const LaunchReport launch = read_launch(log);
    const std::string launcher = fs::path(record.command.front()).filename().string();
    record.error = last_error_line(log);
    if (code == 0) {
      record.error = launcher + " ended with exit code 0, but " + cell_.results(0).string() + " is missing" +
                     (record.error.empty() || launch.has_begun ? "" : ": " + record.error);
    }
    if (is_failed_launch(launch, code)) {
      record.failed_launches = ++failed_launches_;
      record.of_submission = --of_submission_;
      ++failed_launches_here_;
      if (!launch.last_refusal.empty()) record.error = launch.last_refusal;
    }
    if (code == 0 || record.failed_launches > 0) code = kInternalCode;
  }

  // In a batch job a signal is the scheduler's, and the cell goes on in a later job.
  bool is_stopped() const { return was_told_ && batch_ == nullptr; }

  // mpirun has codes of its own for a job that a signal ended; a failure of winnow's stays one.
  static bool is_end_of_stop(int code) { return is_repeatable(code) || code < static_cast<int>(ExitCode::kUsage); }

  // Passes signals on until the child ends.
  int wait_for(pid_t child) {
    while (true) {
      if (const std::optional<int> code = poll_child(child)) return *code;
      const std::optional<int> signal = signals_.next(1.0);
      if (!signal || *signal == SIGCHLD) continue;
      const bool is_second = was_told_ && *signal != SIGUSR1;
      was_told_ = true;
      kill(is_second && batch_ == nullptr ? -child : child,
           is_second && batch_ == nullptr ? SIGKILL : passed_on(*signal));
    }
  }

  // mpirun and srun have own ideas about Ctrl-C; TERM they pass on.
  int passed_on(int signal) const {
    if (signal == SIGUSR1 || signal == SIGTERM) return signal;
    return batch_ == nullptr && cell_.resources.ranks() == 1 ? SIGINT : SIGTERM;
  }

  // The exit code of run-cell, or none: try again here.
  std::optional<int> after_failure(int code) {
    const bool is_last = of_submission_ >= cell_.max_attempts;
    const std::string what = error_.empty() ? "exit code " + std::to_string(code) : error_;
    if (is_stopped() && is_end_of_stop(code)) return kInterruptedCode;
    if (is_failed_launch_) return after_failed_launch(what);
    if (!is_repeatable(code) || is_last) {
      if (batch_ != nullptr) batch_->settled(this_attempt());
      say(cell_,
          (is_repeatable(code) ? "given up after " + std::to_string(of_submission_) + " attempts: " : "failed: ") +
              what + " (log: " + attempt_log(cell_.run_directory, number_).string() + ")");
      return code;
    }
    if (batch_ != nullptr) {
      say(cell_, "interrupted (" + what + "): " + batch_->again(this_attempt()));
      return kInterruptedCode;
    }
    say(cell_, "attempt " + std::to_string(of_submission_) + " was interrupted (" + what + "), trying again");
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    return std::nullopt;
  }

  // The next step of this job has another number than the one that could not start, and a moment may be all that is
  // missing; where that does not help, another job is.
  std::optional<int> after_failed_launch(const std::string& what) {
    const std::string which = "launch " + std::to_string(failed_launches_) + " failed (" + what + ")";
    if (failed_launches_ >= kMostFailedLaunches) {
      if (batch_ != nullptr) batch_->settled(this_attempt());
      say(cell_, "given up: " + which + "; log: " + attempt_log(cell_.run_directory, number_).string());
      return kInternalCode;
    }
    if (!was_told_ && (batch_ == nullptr || failed_launches_here_ < kMostFailedLaunchesOfAJob)) {
      say(cell_, which + ", trying again");
      if (wait_before_launch()) return std::nullopt;
    }
    if (batch_ != nullptr) say(cell_, which + ": " + batch_->again(this_attempt()));
    return kInterruptedCode;
  }

  // False where a signal came meanwhile.
  bool wait_before_launch() {
    const auto doubled = launch_pause_ * (1LL << std::min(failed_launches_ - 1, 10));
    const auto end = std::chrono::steady_clock::now() + std::min<std::chrono::milliseconds>(doubled, kLongestPause);
    for (auto now = std::chrono::steady_clock::now(); now < end; now = std::chrono::steady_clock::now()) {
      const std::optional<int> signal = signals_.next(std::chrono::duration<double>(end - now).count());
      was_told_ = was_told_ || (signal && *signal != SIGCHLD);
      if (was_told_) return false;
    }
    return true;
  }

  int give_up() {
    if (batch_ != nullptr) batch_->settled(this_attempt());
    const auto json = read_json(attempt_record(cell_.run_directory, number_));
    const int code = json ? AttemptRecord::from_json(*json).exit_code.value_or(kInterruptedCode) : kInterruptedCode;
    say(cell_, "given up after " + std::to_string(of_submission_) + " attempts and " +
                   std::to_string(failed_launches_) + " failed launches; submit the sweep again to go on");
    return code == 0 ? kInterruptedCode : code;
  }

  fs::path submission_;
  int task_;
  Cell cell_;
  BatchSystem* batch_;
  std::chrono::milliseconds launch_pause_;
  SignalQueue signals_;
  int number_ = 0;                 // of the last attempt, all submissions together
  int of_submission_ = 0;          // attempts of this one, without failed launches
  int failed_launches_ = 0;        // of this submission
  int failed_launches_here_ = 0;   // of this process
  bool was_told_ = false;          // a signal came
  std::string error_;              // of the last attempt
  int code_ = 0;                   // its exit code
  bool is_failed_launch_ = false;  // no rank of it began
};

}  // namespace

int run_cell(const fs::path& submission, int task, BatchSystem* batch, std::chrono::milliseconds launch_pause) {
  const std::vector<Cell> cells = read_submission(submission);
  if (task < 0 || task >= static_cast<int>(cells.size())) {
    fail(ExitCode::kUsage, submission.string() + ": there is no task " + std::to_string(task) + "; tasks are 0 to " +
                               std::to_string(static_cast<int>(cells.size()) - 1));
  }
  return CellRun(fs::absolute(submission), task, cells[static_cast<std::size_t>(task)], batch, launch_pause).run();
}

}  // namespace winnow::sweep
