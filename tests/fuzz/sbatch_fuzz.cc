// Whatever sbatch and the wrappers around it print: a job's number is digits of that text, or there is none.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "jobs/sweep/executors/slurm/sbatch_answer.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

// The first byte is the exit code, the second the length of what goes to stdout; the rest goes to stderr.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using winnow::slurm::SbatchAnswer;
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data + 2), size - 2);
  const winnow::sweep::ProgramOutput output{.exit_code = data[0],
                                            .out = text.substr(0, data[1]),
                                            .err = text.size() > data[1] ? text.substr(data[1]) : "",
                                            .is_timed_out = false,
                                            .is_cut = false};
  const winnow::slurm::SbatchAnswer answer = winnow::slurm::read_sbatch_answer(output);
  require((answer.kind == winnow::slurm::SbatchAnswer::Kind::kQueued) != answer.job.empty());
  require(answer.kind != winnow::slurm::SbatchAnswer::Kind::kQueued || output.exit_code == 0);
  require(answer.kind != winnow::slurm::SbatchAnswer::Kind::kRefused ||
          (output.exit_code != 0 && !winnow::sweep::is_signalled(output.exit_code)));
  require((answer.kind == winnow::slurm::SbatchAnswer::Kind::kQueued) == answer.words.empty());
  if (answer.kind != winnow::slurm::SbatchAnswer::Kind::kQueued) return 0;
  require(answer.job.size() <= 10 && answer.job[0] != '0');
  require(answer.job.find_first_not_of("0123456789") == std::string::npos);
  return 0;
}
