// Finds the state of a cell by its run directory and Slurm's queue: nothing else is kept.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "jobs/sweep/executor.h"

namespace winnow::sweep {

// RUN_DIR/attempts/N.json.
struct AttemptRecord {
  int attempt = 1;         // N: of all submissions
  std::string submission;  // ID
  int of_submission = 1;   // of this submission; failed launches are not counted
  int max_attempts = 5;
  std::string host;
  std::string started;  // UTC
  std::string ended;    // "" while it runs, or where run-cell was killed
  std::optional<int> exit_code;
  std::string error;        // last line of the log that says why, "" for none
  bool is_stopped = false;  // a user stopped it: no fault of the cell
  int failed_launches = 0;  // of this submission, up to this one; 0 where a rank began (failed_launch.h)
  std::string slurm_job;
  std::string slurm_task;
  std::vector<std::string> command;

  nlohmann::json to_json() const;
  static AttemptRecord from_json(const nlohmann::json& json);  // missing fields stay as above
};

std::filesystem::path attempt_record(const std::filesystem::path& run_directory, int attempt);
std::filesystem::path attempt_log(const std::filesystem::path& run_directory, int attempt);
// Returns the numbers of the attempts that there are, rising.
std::vector<int> list_attempts(const std::filesystem::path& run_directory);

// Returns true if an attempt with that exit code may succeed when it is repeated: interrupted, a dead peer, a signal.
bool is_repeatable(int exit_code);
// Returns true if every seed's result is there.
bool is_done(const Cell& cell);
CellStatus cell_status(const Cell& cell, const std::map<std::string, QueueEntry>& queue);
// Returns "waiting", "done", ...
const char* state_name(CellState state);

// Returns the last line of a log that is an error of winnow, else the last that has a letter; "" for none. Reads its
// end only.
std::string last_error_line(const std::filesystem::path& log);

}  // namespace winnow::sweep
