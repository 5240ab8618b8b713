// Reads sbatch's answer to a script out of all that it prints, and a site's wrapper around it.
#pragma once

#include <optional>
#include <string>

#include "jobs/sweep/program_output.h"

namespace winnow::slurm {

struct SbatchAnswer {
  // kUnclear: the job may be in the queue or not. sbatch was killed or ran out of time, the connection broke after the
  // request was sent, or it gave no number.
  enum class Kind { kQueued, kRefused, kUnclear };
  Kind kind = Kind::kUnclear;
  std::string job;    // kQueued: its number, digits only
  std::string words;  // else: why, in sbatch's own words
};

SbatchAnswer read_sbatch_answer(const sweep::ProgramOutput& output);

// Returns the number of a job in a text of many lines: a line of its own, "1234" or "1234;cluster", else behind
// "Submitted batch job". Colours of a terminal are passed over. None where there is no number, or more than one.
std::optional<std::string> find_job_number(const std::string& text);

}  // namespace winnow::slurm
