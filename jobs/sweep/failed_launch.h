// Tells an attempt that the ranks made from one in which the launcher, srun or mpirun, never started them.
#pragma once

#include <filesystem>
#include <string>

namespace winnow::sweep {

// Launches of a cell that may fail in one submission before it is given up, and those of them in one batch job.
inline constexpr int kMostFailedLaunches = 10;
inline constexpr int kMostFailedLaunchesOfAJob = 3;

struct LaunchReport {
  bool has_begun = false;    // a rank has said something
  std::string last_refusal;  // last line in which Slurm says that it could not start the step, "" for none
};

// Reads the log of an attempt up to the first line of a rank; of a log that cannot be read nothing is known.
LaunchReport read_launch(const std::filesystem::path& log);

// Whether an attempt that ended with that exit code was no run of the ranks but a failed launch, which says nothing of
// the cell and may succeed on other nodes or a moment later. srun returns 0 for some of them.
bool is_failed_launch(const LaunchReport& report, int exit_code);

// Whether these are the words of a command of Slurm that failed because slurmctld did not answer, which passes.
bool is_controller_silent(const std::string& words);

}  // namespace winnow::sweep
