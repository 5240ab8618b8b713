// Writes and reads OUT/submissions/ID/slurm.json: the arrays of a submission, and what its jobs need of the site
// settings. It is written before sbatch is called and never edited: squeue says what became of the jobs. Beside it is
// submitted.json: the arrays that sbatch has taken, and those of which that is not clear.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "jobs/sweep/executors/slurm/script.h"
#include "jobs/sweep/executors/slurm/site.h"

namespace winnow::slurm {

struct SlurmSubmission {
  std::filesystem::path path;
  SlurmSite site;                  // the part of run_time_json()
  std::vector<SlurmArray> arrays;  // without resources
};

void write_slurm_submission(const SlurmSubmission& submission);
// Reads a submission; none where it is not one to Slurm, or not a whole one.
std::optional<SlurmSubmission> read_slurm_submission(const std::filesystem::path& path);
// Answers of sbatch on a submission's arrays, by their names. An array whose answer is not clear may be in the queue,
// or come to it within kUnclearSeconds: slurmctld handles requests late when it is busy. Until then nothing is
// submitted in its place.
struct SubmittedArrays {
  std::map<std::string, std::string> jobs;       // numbers
  std::map<std::string, int64_t> unclear_since;  // seconds since 1970
};

inline constexpr int64_t kUnclearSeconds = 300;

void write_submitted(const std::filesystem::path& submission, const SubmittedArrays& submitted);
// Reads submitted.json; empty where it is missing or not winnow's.
SubmittedArrays read_submitted(const std::filesystem::path& submission);
// Returns true if a call of sbatch at that time may still put a job into the queue, at `now`. A time ahead of now may:
// clocks of hosts differ.
bool is_unclear(int64_t since, int64_t now);

// Returns all submissions to Slurm in OUT.
std::vector<SlurmSubmission> list_slurm_submissions(const std::filesystem::path& output);

}  // namespace winnow::slurm
