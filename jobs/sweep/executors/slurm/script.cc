#include "jobs/sweep/executors/slurm/script.h"

#include <utility>
#include <vector>

#include "base/strings.h"
#include "jobs/sweep/executors/slurm/commands.h"

namespace winnow::slurm {
namespace {

// Slurm mixes up percent signs and backslashes of a log's folder with its own patterns.
bool can_hold_log(const std::filesystem::path& folder) {
  return folder.string().find_first_of("%\\") == std::string::npos;
}

std::vector<std::string> options(const SlurmArray& array, const ScriptContext& context, const SlurmSite& site) {
  const sweep::Resources& asked = array.resources;
  std::vector<std::string> result = {
      "--job-name=" + array.job_name,
      "--array=0-" + std::to_string(array.count - 1) +
          (context.max_parallel > 0 ? "%" + std::to_string(context.max_parallel) : ""),
      "--chdir=" + context.submission.string(),
      "--output=" + (can_hold_log(context.submission) ? array.name + "_%a.log" : "/dev/null"),
      "--open-mode=append",
      "--signal=USR1@" + std::to_string(site.signal_seconds),
      site.requeue == RequeueMode::kSuccessor ? "--no-requeue" : "--requeue",
      "--nodes=" + std::to_string(asked.nodes),
      "--ntasks-per-node=" + std::to_string(asked.ranks_per_node)};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) result.push_back(option + value);
  };
  if (asked.gpus_per_node > 0) {
    add("--gres=gpu:", (site.gpu_type.empty() ? "" : site.gpu_type + ":") + std::to_string(asked.gpus_per_node));
  }
  add("--time=", asked.time);
  add("--mem=", asked.memory);
  add("--partition=", site.partition);
  add("--account=", site.account);
  add("--qos=", site.qos);
  result.insert(result.end(), site.sbatch_options.begin(), site.sbatch_options.end());
  result.insert(result.end(), asked.sbatch_options.begin(), asked.sbatch_options.end());
  return result;
}

std::string option_lines(const std::vector<std::string>& options) {
  std::string text;
  for (const std::string& option : options) text += (text.empty() ? "" : "\n") + ("#SBATCH " + sbatch_quoted(option));
  return text;
}

// Setup first: it may be what makes `module` known.
std::string setup_lines(const SlurmSite& site) {
  std::string text;
  for (const std::string& line : site.setup) text += (text.empty() ? "" : "\n") + line;
  for (const std::string& module : site.modules) {
    text += (text.empty() ? "" : "\n") + ("module load " + shell_quoted(module));
  }
  return text;
}

// In one pass, so that a value that looks like a placeholder stays what it is.
std::string fill(const std::string& text, const std::vector<std::pair<std::string, std::string>>& values) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    bool is_placeholder = false;
    for (const auto& [placeholder, value] : values) {
      if (text.compare(i, placeholder.size(), placeholder) != 0) continue;
      result += value;
      i += placeholder.size();
      is_placeholder = true;
      break;
    }
    if (!is_placeholder) result += text[i++];
  }
  return result;
}

}  // namespace

std::string slurm_script(const SlurmArray& array, const ScriptContext& context, const SlurmSite& site) {
  return fill(site.script_template, {{"@OPTIONS@", option_lines(options(array, context, site))},
                                     {"@SETUP@", setup_lines(site)},
                                     {"@WINNOW@", shell_quoted(context.winnow.string())},
                                     {"@SUBMISSION@", shell_quoted(context.submission.string())},
                                     {"@FIRST@", std::to_string(array.first)}});
}

}  // namespace winnow::slurm
