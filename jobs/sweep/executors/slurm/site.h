// Settings of a cluster: slurm/site.yaml, described in slurm/README.md and slurm/site.yaml.example.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace winnow::slurm {

// Way in which an interrupted cell comes back.
enum class RequeueMode {
  kRequeue,    // scontrol requeue; a successor where that is refused
  kSuccessor,  // a job that waits for the failure of this one, queued when this one starts
};

struct SlurmSite {
  std::string partition;  // "": Slurm's default, as below
  std::string account;
  std::string qos;
  std::string gpu_type;                     // "h100": --gres=gpu:h100:N
  std::vector<std::string> sbatch_options;  // one argument each
  std::vector<std::string> modules;
  std::vector<std::string> setup;  // lines of bash
  std::string mpi = "pmix";
  std::vector<std::string> srun_options;
  std::vector<std::string> container;  // words before winnow on the ranks
  RequeueMode requeue = RequeueMode::kRequeue;
  int signal_seconds = 300;  // before the time limit
  std::string script_template;

  // Returns what the jobs of a submission need of it: a later edit of the file does not reach them.
  nlohmann::json run_time_json() const;
  static SlurmSite from_run_time_json(const nlohmann::json& json);
};

// Reads the settings. `file`: "" for the first of $WINNOW_SITE, slurm/site.yaml of the source tree that the executable
// was built in, etc/winnow/site.yaml beside its bin, winnow/site.yaml in the user's configuration folder; none of them:
// the defaults. Throws Error(kNoInput) for a named file that is missing, Error(kUsage) with all that is wrong in it.
SlurmSite read_slurm_site(const std::filesystem::path& file);
SlurmSite parse_slurm_site(const std::filesystem::path& file);

}  // namespace winnow::slurm
