// Makes the batch script of one array: the template with its placeholders filled in.
#pragma once

#include <filesystem>
#include <string>

#include "jobs/sweep/executor.h"
#include "jobs/sweep/executors/slurm/site.h"

namespace winnow::slurm {

// Cells first to first + count - 1 of a submission, all with equal resources.
struct SlurmArray {
  std::string name;      // "group-1": of its script and its log
  std::string job_name;  // unique: squeue is asked for it. A successor has it, too
  int first = 0;
  int count = 0;
  sweep::Resources resources;

  std::string script() const { return name + ".sbatch"; }
};

struct ScriptContext {
  std::filesystem::path submission;  // absolute
  std::filesystem::path winnow;      // absolute
  int max_parallel = 0;              // 0: no limit
};

// Returns the script. Every value is quoted: for sbatch where it is an option, for the shell where it is a word of a
// command. Throws Error(kUsage) for one that has no form there.
std::string slurm_script(const SlurmArray& array, const ScriptContext& context, const SlurmSite& site);

}  // namespace winnow::slurm
