// Types that the parts of a sweep share: cells, their states, and the batch system of run-cell.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace winnow::sweep {

// Resources that one cell needs. Cells with equal resources go to Slurm together, in one array.
struct Resources {
  int nodes = 1;
  int ranks_per_node = 1;
  int gpus_per_node = 0;
  std::string time;                         // as Slurm reads it: "02:00:00"; "": the site's default
  std::string memory;                       // of a node, as Slurm reads it: "64G"; "": the site's default
  std::vector<std::string> sbatch_options;  // one argument each, as given: "--constraint=h100"

  int ranks() const { return nodes * ranks_per_node; }
  auto operator<=>(const Resources&) const = default;
};

// One measurement of a sweep. Cells that differ in the statistics seed only are one cell with several seeds.
struct Cell {
  std::string name;                              // name of the run directory: readable, and 12 hex digits
  std::filesystem::path run_directory;           // OUT/runs/NAME, absolute
  std::vector<std::string> calibrate_arguments;  // after `winnow`: the verb, "--model", ...; no --seed
  std::vector<uint64_t> seeds;                   // of the statistics, never empty
  Resources resources;
  int max_attempts = 5;  // of one submission
  // Coordinates, as the sweep file names them.
  std::string model;
  std::string dataset;
  int64_t window = 0;
  int64_t sinks = 0;
  std::string decode;  // "windowed" or "full"
  std::string target;  // "" where the sweep file names none; "hf,vllm" where both mean this measurement

  // Returns "calibrate", "search" or "evaluate".
  std::string verb() const { return calibrate_arguments.empty() ? "calibrate" : calibrate_arguments.front(); }
  bool is_calibration() const { return verb() == "calibrate"; }
  // Returns the path of the result with that seed: RUN_DIR/results.h5 has seed 0, RUN_DIR/seeds/SEED/results.h5 any
  // other.
  std::filesystem::path results(uint64_t seed) const {
    if (seed == 0) return run_directory / "results.h5";
    return run_directory / "seeds" / std::to_string(seed) / "results.h5";
  }
};

// kWaiting: never started, in no queue. kInterrupted: started, not finished, and nothing runs it now.
enum class CellState { kWaiting, kQueued, kRunning, kInterrupted, kDone, kFailed };

struct CellStatus {
  CellState state = CellState::kWaiting;
  double progress = 0.0;              // 0 to 1
  std::optional<double> eta_seconds;  // of a running cell, once it says so
  int attempts = 0;                   // of all submissions
  std::string last_error;             // one line, "" when there is none
  std::filesystem::path log;          // of the last attempt, "" when there is none
  std::optional<int> exit_code;       // of the last attempt, once it ended
  std::string job;                    // of Slurm, "" when there is none: "1234_5"
};

// A cell that a queue knows.
struct QueueEntry {
  CellState state = CellState::kQueued;  // kQueued or kRunning
  std::string job;                       // "1234_5"
  std::string reason;                    // why it waits, in Slurm's words: "Resources", "Dependency"
};

// One attempt of run-cell.
struct Attempt {
  std::filesystem::path submission;  // OUT/submissions/ID
  int task = 0;                      // index in its cells.json
  int number = 1;                    // of this submission, from 1
  bool is_last = false;              // max_attempts is reached: there must be no successor
  bool was_told = false;             // it ended with exit code 75: it stopped as it was told
};

// The batch system that run-cell runs in. The calls for an attempt come in this order: begin, launcher, then one of
// again and settled. run-cell may be killed between any two.
class BatchSystem {
 public:
  BatchSystem() = default;
  BatchSystem(const BatchSystem&) = delete;
  BatchSystem& operator=(const BatchSystem&) = delete;
  virtual ~BatchSystem() = default;

  // Queues the successor, before the cell starts, where a preempted job would be gone (site option requeue: successor),
  // unless the attempt is the last.
  virtual void begin(const Attempt& attempt) = 0;
  // Returns the words before `winnow VERB ...` that start it on the ranks of the cell: "srun", "--mpi=pmix", ...
  virtual std::vector<std::string> launcher(const Cell& cell) = 0;
  // Repeats an attempt that was interrupted (exit 75, a dead rank): requeues this job, or queues a successor where that
  // is refused or the attempt was not told to stop. Returns what it did in one line. Throws Error with Slurm's words
  // where nothing helped.
  virtual std::string again(const Attempt& attempt) = 0;
  // Takes a queued successor back, as the cell is done or has failed for good.
  virtual void settled(const Attempt& attempt) = 0;
  // Return "1234" and "5" for the record of the attempt; the task is "" outside of an array.
  virtual std::string job() const = 0;
  virtual std::string task() const = 0;
};

}  // namespace winnow::sweep
