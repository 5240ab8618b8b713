// OUT/submissions/ID/slurm.json: the arrays of a submission, and what its jobs need of the site settings. Written
// before sbatch is called, never edited: what became of the jobs is squeue's to say. Beside it stands submitted.json:
// which of the arrays sbatch has taken, and of which it is not clear.
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
// None where it is no submission to Slurm, or not a whole one.
std::optional<SlurmSubmission> read_slurm_submission(const std::filesystem::path& path);
// What sbatch said of a submission's arrays, by their names. One of which it is not clear may be in the queue, or come
// to it within kUnclearSeconds: slurmctld handles requests late when it is busy. Until then nothing is submitted in its
// place.
struct SubmittedArrays {
  std::map<std::string, std::string> jobs;       // numbers
  std::map<std::string, int64_t> unclear_since;  // seconds since 1970
};

inline constexpr int64_t kUnclearSeconds = 300;

void write_submitted(const std::filesystem::path& submission, const SubmittedArrays& submitted);
// Nothing where the file is missing or is none of winnow's.
SubmittedArrays read_submitted(const std::filesystem::path& submission);
// Whether a call of sbatch at that time may still put a job into the queue, at `now`. A time ahead of now may: clocks
// of hosts differ.
bool is_unclear(int64_t since, int64_t now);

// All in OUT.
std::vector<SlurmSubmission> list_slurm_submissions(const std::filesystem::path& output);

}  // namespace winnow::slurm
