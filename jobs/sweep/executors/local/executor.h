// Runs a sweep on this machine: cell after cell, or several at once.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "jobs/sweep/executor.h"

namespace winnow::local {

struct LocalOptions {
  std::filesystem::path output;
  std::filesystem::path winnow;  // executable
  int jobs = 1;                  // cells at once
  bool dry_run = false;          // print the commands, and start nothing
};

// Runs these cells, each in a process `winnow sweep run-cell`. A cell that fails does not keep the others from running.
// After TERM, INT (Ctrl-C) or HUP the cells that run stop and keep what they finished, and no other starts. `record`
// goes into the submission. Returns 0 where every cell is done, 75 where some are interrupted or run by somebody else,
// else the exit code of the first that failed. Throws Error.
int submit_locally(const std::vector<sweep::Cell>& cells, const LocalOptions& options, const nlohmann::json& record);

// Returns words as a shell would read them back, for printing.
std::string quoted(const std::vector<std::string>& words);

}  // namespace winnow::local
