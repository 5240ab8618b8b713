// Runs one cell: attempts of its verb on the cell's ranks until it is done or has failed for good.
#pragma once

#include <chrono>
#include <filesystem>

#include "jobs/sweep/executor.h"
#include "jobs/sweep/submission.h"

namespace winnow::sweep {

// Runs the cell with that index in the submission's cells.json, under its lock. Returns the exit code of the last
// attempt, and 0 for a cell that somebody else runs or that is done. USR1, TERM, INT and HUP go to the ranks, and the
// cell is then left interrupted (75). Throws Error.
//
// `batch`: the batch system around this process, which starts the ranks and repeats an interrupted attempt in a later
// job. Null: mpirun starts them, and attempts are repeated at once.
//
// An attempt in which no rank began is repeated too, in the same job at first, since a later step has another number,
// and is counted apart from the others. `launch_pause`: before the first such repetition; each further one waits twice
// as long, up to a minute.
int run_cell(const std::filesystem::path& submission, int task, BatchSystem* batch,
             std::chrono::milliseconds launch_pause = std::chrono::seconds(5));

}  // namespace winnow::sweep
