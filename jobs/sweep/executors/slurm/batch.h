// The Slurm job around this process, as run-cell sees it.
#pragma once

#include <filesystem>
#include <memory>

#include "jobs/sweep/executor.h"

namespace winnow::slurm {

// The batch system around this process; null outside of a job. Reads the site file that the submission names.
std::unique_ptr<sweep::BatchSystem> batch_system_here(const std::filesystem::path& submission);

}  // namespace winnow::slurm
