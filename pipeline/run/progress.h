// Shows on stderr how far a run is, on rank 0 only: one line that is rewritten on a terminal, sparse lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "pipeline/run/plan.h"

namespace winnow::run {

// Shows and records progress. It is not thread-safe: the dispatcher calls it under its lock.
class Progress {
 public:
  // Starts at nothing done. expected_seconds: of the whole run, as planned; used until the first unit is done.
  Progress(std::span<const WorkUnit> units, double expected_seconds);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  // ends the line on a terminal

  void done(int64_t unit);
  // Shows progress when it is time to: often on a terminal, else at most twice a minute.
  void tick();

  // Writes RUN_DIR/progress.json from now on, at most every five seconds and at the end. cells_before, cells_total: of
  // the whole measurement, found at the start.
  void keep_in(const std::filesystem::path& run_directory, int64_t cells_before, int64_t cells_total);

  int64_t units_done() const { return units_done_; }
  int64_t cells_done() const { return cells_done_; }

 private:
  std::string line() const;
  double seconds_left() const;
  void write_file();

  std::vector<double> cost_seconds_;  // by unit
  std::vector<int64_t> n_cells_;      // by unit
  double total_cost_ = 0.0;
  double done_cost_ = 0.0;
  double expected_seconds_;
  int64_t units_done_ = 0;
  int64_t cells_done_ = 0;
  bool is_terminal_;
  bool line_is_open_ = false;
  bool end_is_shown_ = false;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point last_shown_ = begin_;
  std::filesystem::path file_;  // "": none
  int64_t cells_before_ = 0;
  int64_t cells_total_ = 0;
  Clock::time_point last_written_ = begin_;
};

}  // namespace winnow::run
