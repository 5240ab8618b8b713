// Tells an attempt that the ranks made from one in which the launcher, srun or mpirun, never started them.
#pragma once

#include <filesystem>
#include <string>

namespace winnow::sweep {

// Bounds on the failed launches of a cell in one submission, and in one batch job, before it is given up.
inline constexpr int kMostFailedLaunches = 10;
inline constexpr int kMostFailedLaunchesOfAJob = 3;

struct LaunchReport {
  bool has_begun = false;    // a rank has said something
  std::string last_refusal;  // last line in which Slurm says that it could not start the step, "" for none
};

// Reads the log of an attempt up to the first line of a rank; empty for a log that cannot be read.
LaunchReport read_launch(const std::filesystem::path& log);

// Returns true if an attempt that ended with that exit code was a failed launch, which says nothing of the cell and may
// succeed on other nodes or a moment later. srun returns 0 for some of them.
bool is_failed_launch(const LaunchReport& report, int exit_code);

// Returns true if these are the words of a command of Slurm that failed because slurmctld did not answer, which passes.
bool is_controller_silent(const std::string& words);

}  // namespace winnow::sweep
