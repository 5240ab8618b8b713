#include "jobs/sweep/executors/slurm/site.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>

#include "base/error.h"
#include "base/yaml_file.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/sweep_file.h"
#include "jobs/sweep/sweep_schema.h"
#include "slurm_template.h"

namespace winnow::slurm {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMaxSignalSeconds = 65535;  // of sbatch

const sweep::ObjectSchema& site_schema() {
  static const sweep::ObjectSchema schema = {
      .what = "site settings",
      .keys = {{.name = "partition", .help = "sbatch --partition"},
               {.name = "account", .help = "sbatch --account"},
               {.name = "qos", .help = "sbatch --qos"},
               {.name = "gpu_type", .help = "sbatch --gres=gpu:TYPE:N"},
               {.name = "sbatch", .help = "other options of sbatch", .form = sweep::ValueForm::kList},
               {.name = "modules", .help = "module load", .form = sweep::ValueForm::kList},
               {.name = "setup", .help = "lines of bash before winnow", .form = sweep::ValueForm::kList},
               {.name = "mpi", .help = "srun --mpi"},
               {.name = "srun", .help = "other options of srun", .form = sweep::ValueForm::kList},
               {.name = "container", .help = "words before winnow on the ranks", .form = sweep::ValueForm::kList},
               {.name = "requeue",
                .type = sweep::ValueType::kChoice,
                .help = "how an interrupted cell comes back",
                .choices = {"requeue", "successor"}},
               {.name = "signal_seconds", .type = sweep::ValueType::kInteger, .help = "from USR1 to the time limit"},
               {.name = "template", .help = "instead of slurm/cell.sbatch"}}};
  return schema;
}

fs::path default_file() {
  if (const char* named = std::getenv("WINNOW_SITE"); named != nullptr && *named != '\0') return named;
  const fs::path prefix = sweep::own_executable().parent_path().parent_path();
  std::vector<fs::path> places = {prefix / "slurm" / "site.yaml", prefix / "etc" / "winnow" / "site.yaml"};
  if (const char* folder = std::getenv("XDG_CONFIG_HOME"); folder != nullptr && *folder != '\0') {
    places.push_back(fs::path(folder) / "winnow" / "site.yaml");
  } else if (const char* home = std::getenv("HOME"); home != nullptr) {
    places.push_back(fs::path(home) / ".config" / "winnow" / "site.yaml");
  }
  for (const fs::path& place : places) {
    std::error_code ignored;
    if (fs::is_regular_file(place, ignored)) return place;
  }
  return "";
}

void take(const YAML::Node& root, const char* key, std::string& value) {
  if (const YAML::Node node = root[key]) value = node.Scalar();
}

void take(const YAML::Node& root, const char* key, std::vector<std::string>& values) {
  for (const YAML::Node& node : root[key] ? root[key] : YAML::Node(YAML::NodeType::Sequence)) {
    values.push_back(node.Scalar());
  }
}

std::string read_template(const YAML::Node& root, const fs::path& site_file, std::vector<sweep::Diagnostic>& problems) {
  const YAML::Node node = root["template"];
  if (!node) return kSlurmTemplate;
  const fs::path path = fs::absolute(site_file).parent_path() / node.Scalar();
  const std::string text = read_yaml_text(path, "the template of the site settings");
  for (const char* placeholder : {"@OPTIONS@", "@SETUP@", "@WINNOW@", "@SUBMISSION@", "@FIRST@"}) {
    if (text.find(placeholder) == std::string::npos) {
      problems.push_back(sweep::problem_at(
          node, path.string() + " has no " + placeholder + "; expected all placeholders of " + "slurm/cell.sbatch"));
    }
  }
  return text;
}

}  // namespace

SlurmSite parse_slurm_site(const fs::path& file) {
  SlurmSite site;
  site.script_template = kSlurmTemplate;
  std::vector<sweep::Diagnostic> problems;
  YAML::Node root;
  try {
    root = parse_yaml(read_yaml_text(file, "the file of site settings (slurm/README.md)"));
  } catch (const YamlError& error) {
    problems.push_back({.line = error.line(), .column = error.column(), .message = error.what()});
  }
  if (root.IsNull()) {
    sweep::refuse_problems(file, problems);
    return site;
  }
  sweep::check_against_schema(root, site_schema(), problems);
  sweep::refuse_problems(file, problems);
  take(root, "partition", site.partition);
  take(root, "account", site.account);
  take(root, "qos", site.qos);
  take(root, "gpu_type", site.gpu_type);
  take(root, "sbatch", site.sbatch_options);
  take(root, "modules", site.modules);
  take(root, "setup", site.setup);
  take(root, "mpi", site.mpi);
  take(root, "srun", site.srun_options);
  take(root, "container", site.container);
  if (root["requeue"] && root["requeue"].Scalar() == "successor") site.requeue = RequeueMode::kSuccessor;
  if (const YAML::Node seconds = root["signal_seconds"]) {
    const auto value = seconds.as<int64_t>();
    if (value > kMaxSignalSeconds) {
      problems.push_back(sweep::problem_at(seconds, "signal_seconds is " + seconds.Scalar() + "; expected at most " +
                                                        std::to_string(kMaxSignalSeconds)));
    } else {
      site.signal_seconds = static_cast<int>(value);
    }
  }
  site.script_template = read_template(root, file, problems);
  sweep::refuse_problems(file, problems);
  return site;
}

SlurmSite read_slurm_site(const fs::path& file) {
  const fs::path found = file.empty() ? default_file() : file;
  if (!found.empty()) return parse_slurm_site(found);
  SlurmSite site;
  site.script_template = kSlurmTemplate;
  return site;
}

nlohmann::json SlurmSite::run_time_json() const {
  return {{"mpi", mpi},
          {"srun", srun_options},
          {"container", container},
          {"requeue", requeue == RequeueMode::kSuccessor ? "successor" : "requeue"}};
}

SlurmSite SlurmSite::from_run_time_json(const nlohmann::json& json) {
  SlurmSite site;
  site.mpi = json.at("mpi");
  site.srun_options = json.at("srun").get<std::vector<std::string>>();
  site.container = json.at("container").get<std::vector<std::string>>();
  site.requeue = json.at("requeue") == "successor" ? RequeueMode::kSuccessor : RequeueMode::kRequeue;
  return site;
}

}  // namespace winnow::slurm
