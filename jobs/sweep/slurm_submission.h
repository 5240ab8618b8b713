// OUT/submissions/ID/slurm.json: the arrays of a submission, and what its jobs need of the site settings. Written
// before sbatch is called, never edited: what became of the jobs is squeue's to say.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "jobs/sweep/slurm_script.h"
#include "jobs/sweep/slurm_site.h"

namespace winnow {

struct SlurmSubmission {
  std::filesystem::path path;
  SlurmSite site;                  // the part of run_time_json()
  std::vector<SlurmArray> arrays;  // without resources
};

void write_slurm_submission(const SlurmSubmission& submission);
// None where it is no submission to Slurm, or not a whole one.
std::optional<SlurmSubmission> read_slurm_submission(const std::filesystem::path& path);
// All in OUT.
std::vector<SlurmSubmission> list_slurm_submissions(const std::filesystem::path& output);

}  // namespace winnow
