#include "jobs/sweep/slurm_submission.h"

#include <algorithm>

#include "jobs/sweep/files.h"
#include "results/atomic_file.h"

namespace winnow {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFileName = "slurm.json";

}  // namespace

void write_slurm_submission(const SlurmSubmission& submission) {
  nlohmann::json arrays = nlohmann::json::array();
  for (const SlurmArray& array : submission.arrays) {
    arrays.push_back(
        {{"name", array.name}, {"job_name", array.job_name}, {"first", array.first}, {"count", array.count}});
  }
  write_file_atomically(submission.path / kFileName,
                        dump_json({{"site", submission.site.run_time_json()}, {"arrays", arrays}}, 2));
}

std::optional<SlurmSubmission> read_slurm_submission(const fs::path& path) {
  const std::optional<nlohmann::json> json = read_json(path / kFileName);
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

}  // namespace winnow
