#include "jobs/sweep/executors/local/executor.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory_limits.h"
#include "base/node.h"
#include "base/strings.h"
#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/cells.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/submission.h"
#include "pipeline/run/progress.h"

namespace winnow::local {
namespace {

class LocalRun {
 public:
  LocalRun(const std::vector<sweep::Cell>& cells, const LocalOptions& options, std::filesystem::path submission)
      : cells_(cells),
        options_(options),
        submission_(std::move(submission)),
        slots_(static_cast<std::size_t>(options.jobs)) {
    for (const sweep::Cell& cell : cells_) most_gpus_ = std::max(most_gpus_, cell.resources.gpus_per_node);
  }

  int run() {
    while (true) {
      for (std::size_t slot = 0; slot < slots_.size() && !is_stopping_; ++slot) {
        if (slots_[slot].child == 0 && next_ < cells_.size()) start(slot);
      }
      if (std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.child == 0; })) break;
      take_signal();
      for (Slot& slot : slots_) look_after(slot);
    }
    return conclude();
  }

 private:
  struct Slot {
    pid_t child = 0;  // 0: free
    std::size_t cell = 0;
    Clock::time_point begin;
  };

  void start(std::size_t slot) {
    const std::size_t index = next_++;
    const std::vector<std::string> words = {
        options_.winnow.string(), "sweep",  "run-cell",           "--executor", "local", "--submission",
        submission_.string(),     "--task", std::to_string(index)};
    std::fprintf(stderr, "winnow: [%zu/%zu] %s\n", index + 1, cells_.size(),
                 one_line(sweep::describe(cells_[index])).c_str());
    slots_[slot] = {sweep::start_child(words, {.log = {}, .environment = environment_of(slot, cells_[index])}), index,
                    Clock::now()};
  }

  // Cells that run at once share the cores, and have GPUs of their own.
  std::vector<std::pair<std::string, std::string>> environment_of(std::size_t slot, const sweep::Cell& cell) const {
    std::vector<std::pair<std::string, std::string>> environment;
    if (options_.jobs == 1) return environment;
    if (!has_threads_) {
      const double quota = group_cores();
      auto cores = static_cast<int>(affinity_cores().size());
      if (quota > 0.0) cores = std::min(cores, std::max(1, static_cast<int>(quota)));
      const int threads = std::max(1, cores / (options_.jobs * cell.resources.ranks()));
      environment.emplace_back("OMP_NUM_THREADS", std::to_string(threads));
    }
    if (!has_devices_ && cell.resources.gpus_per_node > 0) {
      std::string devices;
      const int first = static_cast<int>(slot) * most_gpus_;
      for (int i = 0; i < cell.resources.gpus_per_node; ++i) devices += (i > 0 ? "," : "") + std::to_string(first + i);
      environment.emplace_back("CUDA_VISIBLE_DEVICES", devices);
    }
    return environment;
  }

  void take_signal() {
    const std::optional<int> signal = signals_.next(1.0);
    if (!signal || *signal == SIGCHLD) return;
    if (!is_stopping_) {
      std::fprintf(stderr, "winnow: stopping: the cells that run keep what they finished; again: they are killed\n");
    }
    is_stopping_ = true;
    for (const Slot& slot : slots_) {
      if (slot.child != 0) kill(slot.child, *signal);
    }
  }

  void look_after(Slot& slot) {
    if (slot.child == 0) return;
    const std::optional<int> code = sweep::poll_child(slot.child);
    if (!code) return;
    slot.child = 0;
    if (*code != 0 && first_code_ == 0) first_code_ = *code;
    const sweep::Cell& cell = cells_[slot.cell];
    const double seconds = std::chrono::duration<double>(Clock::now() - slot.begin).count();
    std::fprintf(stderr, "winnow: [%zu/%zu] %s after %s: %s\n", slot.cell + 1, cells_.size(),
                 sweep::state_name(sweep::cell_status(cell, {}).state), format_duration(seconds).c_str(),
                 one_line(sweep::describe(cell)).c_str());
  }

  int conclude() const {
    int done = 0;
    int code = 0;
    int interrupted = 0;
    int elsewhere = 0;
    for (const sweep::Cell& cell : cells_) {
      const sweep::CellStatus status = sweep::cell_status(cell, {});
      if (status.state == sweep::CellState::kDone) {
        ++done;
      } else if (status.state == sweep::CellState::kRunning) {
        ++elsewhere;
      } else if (status.state == sweep::CellState::kFailed) {
        if (code == 0) code = status.exit_code.value_or(first_code_);
        std::printf("failed: %s: %s (log: %s)\n", one_line(sweep::describe(cell)).c_str(),
                    one_line(status.last_error).c_str(), one_line(status.log.string()).c_str());
      } else {
        ++interrupted;
      }
    }
    std::printf("%d of %zu cells are done", done, cells_.size());
    if (interrupted > 0) std::printf("; %d not finished: submit again to go on", interrupted);
    if (elsewhere > 0) std::printf("; %d run by another process", elsewhere);
    std::printf("\n");
    if (is_stopping_ || (code == 0 && interrupted + elsewhere > 0)) return static_cast<int>(ExitCode::kInterrupted);
    return code;
  }

  const std::vector<sweep::Cell>& cells_;
  const LocalOptions& options_;
  const std::filesystem::path submission_;
  sweep::SignalQueue signals_;
  std::vector<Slot> slots_;
  std::size_t next_ = 0;
  int most_gpus_ = 0;
  int first_code_ = 0;  // that is not 0
  bool is_stopping_ = false;
  const bool has_threads_ = std::getenv("OMP_NUM_THREADS") != nullptr;
  const bool has_devices_ = std::getenv("CUDA_VISIBLE_DEVICES") != nullptr;
};

}  // namespace

int submit_locally(const std::vector<sweep::Cell>& cells, const LocalOptions& options, const nlohmann::json& record) {
  if (options.dry_run) {
    for (const sweep::Cell& cell : cells) {
      std::vector<std::string> words = {options.winnow.string()};
      if (cell.resources.ranks() > 1) words = {"mpirun", "-n", std::to_string(cell.resources.ranks()), words.front()};
      words.insert(words.end(), cell.calibrate_arguments.begin(), cell.calibrate_arguments.end());
      std::printf("%s\n", one_line(quoted(words)).c_str());
    }
    return 0;
  }
  if (cells.empty()) return 0;
  return LocalRun(cells, options, sweep::write_submission(options.output, cells, record)).run();
}

std::string quoted(const std::vector<std::string>& words) {
  std::vector<std::string> as_read;
  for (const std::string& word : words) as_read.push_back(shell_word(word));
  return joined(as_read, " ");
}

}  // namespace winnow::local
