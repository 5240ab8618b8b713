// The Slurm job around this process, as run-cell sees it.
#pragma once

#include <filesystem>
#include <memory>

#include "jobs/sweep/executor.h"

namespace winnow::slurm {

// Returns the batch system around this process; null outside of a job. Reads the site settings of the submission.
std::unique_ptr<sweep::BatchSystem> batch_system_here(const std::filesystem::path& submission);

}  // namespace winnow::slurm
