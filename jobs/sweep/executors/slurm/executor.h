// Runs the cells of a sweep under Slurm.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jobs/sweep/executor.h"

namespace winnow::slurm {

struct SubmitOptions {
  std::filesystem::path output;                      // OUT of the sweep
  std::string sweep_name;                            // becomes part of the job's name
  std::filesystem::path winnow;                      // executable that the nodes start
  int max_parallel = 0;                              // cells of an array that run at once; 0: as many as Slurm lets
  bool dry_run = false;                              // print the scripts and the sbatch calls, and start nothing
  std::filesystem::path site_file;                   // "": the default place, where there is one
  nlohmann::json record = nlohmann::json::object();  // goes to write_submission as it is, beside what Slurm needs
};

// Returns true if sbatch is on PATH: `--executor auto` asks this.
bool has_slurm();
// Returns what the submissions in OUT have in Slurm's queue, by cell name; empty where there is no Slurm or no
// submission. Does not throw for a Slurm that does not answer: `note` then says so in one line.
std::map<std::string, sweep::QueueEntry> slurm_queue(const std::filesystem::path& output, std::string* note);
// Writes a submission (submission.h) and calls sbatch once for each group of equal resources. `cells` are those that
// are missing and not in the queue. Prints what it did; returns the exit code. Throws Error.
int submit_to_slurm(const std::vector<sweep::Cell>& cells, const SubmitOptions& options);
// Cancels the jobs of these cells, all of them in the queue. Prints; returns the exit code. Throws Error.
int cancel_on_slurm(const std::vector<sweep::Cell>& cells, const std::filesystem::path& output);

}  // namespace winnow::slurm
