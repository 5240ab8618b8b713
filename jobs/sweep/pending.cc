// Stands in for slurm_executor.cc and collect.cc, which take its place.
#include "jobs/sweep/collect.h"
#include "jobs/sweep/executor.h"
#include "kernels/error.h"

namespace winnow {
namespace {
[[noreturn]] void refuse() { fail(ExitCode::kUnavailable, "this build of winnow has no Slurm; use --executor local"); }
}  // namespace

bool has_slurm() { return false; }
std::map<std::string, QueueEntry> slurm_queue(const std::filesystem::path&, std::string*) { return {}; }
int submit_to_slurm(const std::vector<Cell>&, const SubmitOptions&) { refuse(); }
int cancel_on_slurm(const std::vector<Cell>&, const std::filesystem::path&) { refuse(); }
std::unique_ptr<BatchSystem> batch_system_here(const std::filesystem::path&) { return nullptr; }
std::string collect(const Sweep&, const std::vector<CellStatus>&, const std::filesystem::path&, bool) {
  fail(ExitCode::kUnavailable, "this build of winnow cannot collect");
}

}  // namespace winnow
