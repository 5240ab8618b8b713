#include "jobs/sweep/executors/slurm/submission.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "jobs/sweep/files.h"

namespace winnow::slurm {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFileName = "slurm.json";
constexpr const char* kSubmittedName = "submitted.json";

}  // namespace

void write_slurm_submission(const SlurmSubmission& submission) {
  nlohmann::json arrays = nlohmann::json::array();
  for (const SlurmArray& array : submission.arrays) {
    arrays.push_back(
        {{"name", array.name}, {"job_name", array.job_name}, {"first", array.first}, {"count", array.count}});
  }
  write_file_atomically(submission.path / kFileName,
                        sweep::dump_json({{"site", submission.site.run_time_json()}, {"arrays", arrays}}, 2));
}

std::optional<SlurmSubmission> read_slurm_submission(const fs::path& path) {
  const std::optional<nlohmann::json> json = sweep::read_json(path / kFileName);
  if (!json) return std::nullopt;
  try {
    SlurmSubmission submission{.path = path, .site = SlurmSite::from_run_time_json(json->at("site")), .arrays = {}};
    for (const nlohmann::json& array : json->at("arrays")) {
      submission.arrays.push_back({.name = array.at("name"),
                                   .job_name = array.at("job_name"),
                                   .first = array.at("first"),
                                   .count = array.at("count"),
                                   .resources = {}});
    }
    return submission;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

void write_submitted(const fs::path& submission, const SubmittedArrays& submitted) {
  nlohmann::json json = {{"jobs", submitted.jobs}};
  if (!submitted.unclear_since.empty()) json["unclear_since"] = submitted.unclear_since;
  write_file_atomically(submission / kSubmittedName, sweep::dump_json(json, 2));
}

SubmittedArrays read_submitted(const fs::path& submission) {
  SubmittedArrays submitted;
  const std::optional<nlohmann::json> json = sweep::read_json(submission / kSubmittedName);
  if (!json || !json->is_object()) return submitted;
  const auto each = [&](const char* name, const auto& take) {
    const auto found = json->find(name);
    if (found == json->end() || !found->is_object()) return;
    for (const auto& [array, value] : found->items()) take(array, value);
  };
  each("jobs", [&](const std::string& array, const nlohmann::json& value) {
    if (value.is_string()) submitted.jobs[array] = value.get<std::string>();
  });
  each("unclear_since", [&](const std::string& array, const nlohmann::json& value) {
    if (value.is_number_integer()) submitted.unclear_since[array] = value.get<int64_t>();
  });
  return submitted;
}

bool is_unclear(int64_t since, int64_t now) { return since > now - kUnclearSeconds && since < now + kUnclearSeconds; }

std::vector<SlurmSubmission> list_slurm_submissions(const fs::path& output) {
  std::vector<SlurmSubmission> submissions;
  std::error_code error;
  for (fs::directory_iterator entry(output / "submissions", error), end; !error && entry != end;
       entry.increment(error)) {
    if (auto submission = read_slurm_submission(entry->path())) submissions.push_back(std::move(*submission));
  }
  std::sort(submissions.begin(), submissions.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return submissions;
}

}  // namespace winnow::slurm
