// Stands in for collect.cc, which takes its place.
#include "jobs/sweep/collect.h"
#include "kernels/error.h"

namespace winnow {

void collect(const std::vector<Cell>&, const std::filesystem::path&) {
  fail(ExitCode::kUnavailable, "this build of winnow cannot collect");
}

}  // namespace winnow
