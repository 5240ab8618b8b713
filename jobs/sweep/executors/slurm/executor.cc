#include "jobs/sweep/executors/slurm/executor.h"

// submit, status and cancel under Slurm (executor.h).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/node.h"
#include "base/strings.h"
#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/executors/slurm/commands.h"
#include "jobs/sweep/executors/slurm/script.h"
#include "jobs/sweep/executors/slurm/site.h"
#include "jobs/sweep/executors/slurm/submission.h"
#include "jobs/sweep/files.h"
#include "jobs/sweep/submission.h"
#include "pipeline/runtime/lock.h"

namespace winnow::slurm {
namespace fs = std::filesystem;
namespace {

constexpr int kLockSeconds = 120;  // that one submit waits for another

// What Slurm has of a cell: one job that runs, and its successor. None, where it is not clear whether sbatch took the
// job.
struct QueuedCell {
  std::vector<QueuedTask> tasks;
  int64_t unclear_since = 0;  // seconds since 1970, where there are no tasks
};
using QueueByCell = std::map<std::string, QueuedCell>;

int64_t now_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

// Whether the cell was begun by that submission: its job was in the queue, whatever sbatch said.
bool has_begun(const sweep::Cell& cell, const fs::path& submission) {
  const std::vector<int> attempts = sweep::list_attempts(cell.run_directory);
  return std::any_of(attempts.rbegin(), attempts.rend(), [&](int number) {
    const auto json = sweep::read_json(sweep::attempt_record(cell.run_directory, number));
    return json && sweep::AttemptRecord::from_json(*json).submission == submission.filename().string();
  });
}

// Reads the cells of a submission once: few are asked for, and their files are large.
class SubmittedCells {
 public:
  explicit SubmittedCells(const std::vector<SlurmSubmission>& submissions) : submissions_(submissions) {}

  // Null where the array has no such task.
  const sweep::Cell* of(std::size_t submission, const SlurmArray& array, int task) {
    if (!cells_.contains(submission)) cells_[submission] = sweep::read_submission(submissions_[submission].path);
    const auto index = static_cast<std::size_t>(array.first) + static_cast<std::size_t>(task);
    return task < 0 || index >= cells_[submission].size() ? nullptr : &cells_[submission][index];
  }

 private:
  const std::vector<SlurmSubmission>& submissions_;
  std::map<std::size_t, std::vector<sweep::Cell>> cells_;
};

void add_unclear(const std::vector<SlurmSubmission>& submissions, SubmittedCells& cells, QueueByCell& by_cell) {
  for (std::size_t i = 0; i < submissions.size(); ++i) {
    const SubmittedArrays submitted = read_submitted(submissions[i].path);
    for (const SlurmArray& array : submissions[i].arrays) {
      const auto since = submitted.unclear_since.find(array.name);
      if (since == submitted.unclear_since.end() || !is_unclear(since->second, now_seconds())) continue;
      for (int task = 0; task < array.count; ++task) {
        const sweep::Cell* cell = cells.of(i, array, task);
        if (cell == nullptr) break;
        if (by_cell.contains(cell->name) || has_begun(*cell, submissions[i].path)) continue;
        by_cell[cell->name].unclear_since = since->second;
      }
    }
  }
}

// Throws Error(kUnavailable) where squeue does not answer.
QueueByCell queue_by_cell(const fs::path& output) {
  struct SourceLocation {
    std::size_t submission;
    const SlurmArray* array;
  };
  const std::vector<SlurmSubmission> submissions = list_slurm_submissions(output);
  std::map<std::string, SourceLocation> places;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < submissions.size(); ++i) {
    for (const SlurmArray& array : submissions[i].arrays) {
      places[array.job_name] = {i, &array};
      names.push_back(array.job_name);
    }
  }
  QueueByCell by_cell;
  SubmittedCells cells(submissions);
  for (const QueuedTask& task : ask_queue(names)) {
    const auto place = places.find(task.name);
    if (!task.is_live() || place == places.end()) continue;
    const sweep::Cell* cell = cells.of(place->second.submission, *place->second.array, task.task);
    if (cell != nullptr) by_cell[cell->name].tasks.push_back(task);
  }
  add_unclear(submissions, cells, by_cell);
  return by_cell;
}

// Two submits at once: the second one sees what the first has queued.
std::unique_ptr<runtime::RunLock> lock_output(const fs::path& output) {
  sweep::make_directories(output);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kLockSeconds);
  while (true) {
    try {
      return std::make_unique<runtime::RunLock>(output, host_name(), "submit.lock");
    } catch (const Error& error) {
      if (error.code() != ExitCode::kInterrupted) throw;
      if (std::chrono::steady_clock::now() > deadline) {
        fail(ExitCode::kInterrupted, (output / "submit.lock").string() +
                                         ": another winnow sweep submit has been at work for " +
                                         std::to_string(kLockSeconds) + " s; wait for its end and try again");
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

// Without those that were finished, queued or begun since the caller looked.
std::vector<sweep::Cell> still_missing(const std::vector<sweep::Cell>& cells, const fs::path& output) {
  const QueueByCell queue = queue_by_cell(output);
  std::vector<sweep::Cell> missing;
  int n_taken = 0;
  for (const sweep::Cell& cell : cells) {
    if (sweep::is_done(cell)) continue;
    if (queue.contains(cell.name) || runtime::is_locked(cell.run_directory / "cell.lock", host_name())) {
      ++n_taken;
    } else {
      missing.push_back(cell);
    }
  }
  if (n_taken > 0) std::fprintf(stderr, "winnow: %d cells have been taken by another submission\n", n_taken);
  return missing;
}

// Sorts the cells, so that those with equal resources lie together, and cuts them into arrays.
std::vector<SlurmArray> make_arrays(std::vector<sweep::Cell>& cells, int max_count) {
  std::stable_sort(cells.begin(), cells.end(),
                   [](const sweep::Cell& a, const sweep::Cell& b) { return a.resources < b.resources; });
  std::vector<SlurmArray> arrays;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const sweep::Resources& resources = cells[i].resources;
    if (arrays.empty() || arrays.back().resources != resources || arrays.back().count == max_count) {
      arrays.push_back({.name = "group-" + std::to_string(arrays.size() + 1),
                        .job_name = "",
                        .first = static_cast<int>(i),
                        .count = 0,
                        .resources = resources});
    }
    ++arrays.back().count;
  }
  return arrays;
}

void warn_of_short_limits(const std::vector<SlurmArray>& arrays, const SlurmSite& site) {
  for (const SlurmArray& array : arrays) {
    const std::optional<long> limit = slurm_seconds(array.resources.time);
    if (limit && *limit <= site.signal_seconds) {
      std::fprintf(
          stderr,
          "winnow: warning: %s: the time limit %s is not longer than signal_seconds (%d): its cells are told to "
          "stop as soon as they start; ask for more time\n",
          array.name.c_str(), array.resources.time.c_str(), site.signal_seconds);
    }
  }
}

void name_jobs(std::vector<SlurmArray>& arrays, const std::string& sweep_name, const fs::path& submission) {
  for (SlurmArray& array : arrays) {
    array.job_name = sweep_name + "." + submission.filename().string() + "." + array.name;
  }
}

int print_scripts(std::vector<SlurmArray> arrays, const SubmitOptions& options, const SlurmSite& site) {
  const fs::path submission = fs::absolute(options.output) / "submissions" / "DRY-RUN";
  name_jobs(arrays, options.sweep_name, submission);
  for (const SlurmArray& array : arrays) {
    const ScriptContext context{
        .submission = submission, .winnow = options.winnow, .max_parallel = options.max_parallel};
    const std::string script = slurm_script(array, context, site);
    std::printf("# sbatch --parsable %s\n%s\n", shell_quoted((submission / array.script()).string()).c_str(),
                script.c_str());
  }
  return 0;
}

void describe(const SlurmArray& array, const std::string& job) {
  const sweep::Resources& asked = array.resources;
  std::printf("job %s: %s, %d cells, each on %d node%s with %d rank%s", job.c_str(), array.name.c_str(), array.count,
              asked.nodes, asked.nodes == 1 ? "" : "s", asked.ranks_per_node, asked.ranks_per_node == 1 ? "" : "s");
  if (asked.gpus_per_node > 0) std::printf(" and %d GPU%s", asked.gpus_per_node, asked.gpus_per_node == 1 ? "" : "s");
  std::printf("\n");
  std::fflush(stdout);
}

// The number of an array of which sbatch gave none; "" where squeue does not show it or does not answer.
std::string look_for(const SlurmArray& array) {
  for (int look = 0; look < 3; ++look) {
    std::this_thread::sleep_for(std::chrono::seconds(look));
    try {
      for (const QueuedTask& task : ask_queue({array.job_name})) return task.array_job;
    } catch (const Error&) {  // said by the caller
    }
  }
  return "";
}

// One sbatch per array. One that is refused does not keep back the others. What sbatch was asked for is on disk before
// it is asked: whatever happens then, no second submit forgets it.
class Queueing {
 public:
  explicit Queueing(const SlurmSubmission& submission) : submission_(submission) {}

  int run() {
    for (const SlurmArray& array : submission_.arrays) queue(array);
    if (!refusals_.empty()) {
      if (submitted_.jobs.empty() && submitted_.unclear_since.empty()) {
        std::error_code ignored;
        fs::remove_all(submission_.path, ignored);
      }
      add(unclear_,
          refusals_ + "; correct the site settings or the sweep's resources (slurm/README.md) and submit again");
    }
    if (!unclear_.empty()) fail(ExitCode::kUnavailable, unclear_);
    return 0;
  }

 private:
  void queue(const SlurmArray& array) {
    submitted_.unclear_since[array.name] = now_seconds();
    write_submitted(submission_.path, submitted_);
    SbatchAnswer answer;
    const std::string script = (submission_.path / array.script()).string();
    try {
      answer = submit_script(script, {});
    } catch (const Error& error) {  // there is no sbatch any more
      answer = {SbatchAnswer::Kind::kRefused, "", error.what()};
    }
    if (answer.kind == SbatchAnswer::Kind::kUnclear) {
      answer.job = look_for(array);
      if (!answer.job.empty()) answer.kind = SbatchAnswer::Kind::kQueued;
    }
    if (answer.kind == SbatchAnswer::Kind::kUnclear) {
      add(unclear_, "sbatch does not say whether it took " + script + " (" + answer.words +
                        "), and squeue does not show it; its cells count as queued for " +
                        std::to_string(kUnclearSeconds / 60) +
                        " minutes: look at winnow sweep status, then submit again");
      return;
    }
    submitted_.unclear_since.erase(array.name);
    if (answer.kind == SbatchAnswer::Kind::kQueued) {
      submitted_.jobs[array.name] = answer.job;
      describe(array, answer.job);
    } else {
      add(refusals_, "sbatch refused " + script + ": " + answer.words);
    }
    write_submitted(submission_.path, submitted_);
  }

  static void add(std::string& text, const std::string& more) { text += (text.empty() ? "" : "; ") + more; }

  const SlurmSubmission& submission_;
  SubmittedArrays submitted_;
  std::string refusals_;
  std::string unclear_;
};

}  // namespace

bool has_slurm() { return sweep::has_program("sbatch"); }

std::map<std::string, sweep::QueueEntry> slurm_queue(const fs::path& output, std::string* note) {
  std::map<std::string, sweep::QueueEntry> entries;
  try {
    for (const auto& [name, cell] : queue_by_cell(output)) {
      const std::vector<QueuedTask>& tasks = cell.tasks;
      if (tasks.empty()) {
        entries[name] = {
            .state = sweep::CellState::kQueued,
            .job = "",
            .reason = "sbatch did not say whether it took the job; it counts as queued for " +
                      std::to_string(std::max<int64_t>(1, cell.unclear_since + kUnclearSeconds - now_seconds())) +
                      " s"};
        continue;
      }
      const auto running = std::find_if(tasks.begin(), tasks.end(), [](const auto& task) { return task.is_running(); });
      const QueuedTask& task = running == tasks.end() ? tasks.front() : *running;
      entries[name] = {.state = running == tasks.end() ? sweep::CellState::kQueued : sweep::CellState::kRunning,
                       .job = task.id(),
                       .reason = task.reason};
    }
  } catch (const Error& error) {
    if (note != nullptr) *note = error.what();
  }
  return entries;
}

int submit_to_slurm(const std::vector<sweep::Cell>& cells, const SubmitOptions& options) {
  const SlurmSite site = read_slurm_site(options.site_file);
  std::vector<sweep::Cell> missing = cells;
  if (options.dry_run) {
    const std::vector<SlurmArray> arrays = make_arrays(missing, max_array_size());
    warn_of_short_limits(arrays, site);
    return print_scripts(arrays, options, site);
  }
  if (!has_slurm()) {
    fail(ExitCode::kUnavailable,
         "sbatch is not on PATH: there is no Slurm here; log in to a node that has it (module "
         "load slurm?), or run the sweep with --executor local");
  }
  const std::unique_ptr<runtime::RunLock> lock = lock_output(options.output);
  missing = still_missing(cells, options.output);
  if (missing.empty()) {
    std::printf("nothing to submit\n");
    return 0;
  }
  SlurmSubmission submission{.path = {}, .site = site, .arrays = make_arrays(missing, max_array_size())};
  warn_of_short_limits(submission.arrays, site);
  submission.path = fs::absolute(sweep::write_submission(options.output, missing, options.record));
  name_jobs(submission.arrays, options.sweep_name, submission.path);
  const ScriptContext context{
      .submission = submission.path, .winnow = fs::absolute(options.winnow), .max_parallel = options.max_parallel};
  for (const SlurmArray& array : submission.arrays) {
    write_file_atomically(submission.path / array.script(), slurm_script(array, context, site));
  }
  write_slurm_submission(submission);
  return Queueing(submission).run();
}

int cancel_on_slurm(const std::vector<sweep::Cell>& cells, const fs::path& output) {
  // The lock: a submit that is at work would queue cells that have just been cancelled.
  const std::unique_ptr<runtime::RunLock> lock = lock_output(output);
  const QueueByCell queue = queue_by_cell(output);
  std::vector<std::string> pending, running;
  int n_cells = 0;
  for (const sweep::Cell& cell : cells) {
    const auto entry = queue.find(cell.name);
    if (entry == queue.end() || entry->second.tasks.empty()) continue;
    ++n_cells;
    for (const QueuedTask& task : entry->second.tasks) (task.is_running() ? running : pending).push_back(task.id());
  }
  cancel_tasks(pending, running);
  std::printf("cancelled %d cells: %zu waiting and %zu running jobs; what is finished of them stays\n", n_cells,
              pending.size(), running.size());
  return 0;
}

}  // namespace winnow::slurm
