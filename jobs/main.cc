// The program: reads the command line, runs the verb, and turns whatever is thrown into one line and an exit code.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "jobs/cli/surroundings.h"
#include "jobs/program.h"
#include "kernels/cpu/blas_core.h"
#include "pipeline/runtime/launch.h"
#include "pipeline/runtime/session.h"
#include "results/storage/hdf5_server.h"

namespace winnow::program {
namespace {

// The verbs that multiply matrices. The others, programs in Python among them, are spared a second start.
bool multiplies(int argc, char** argv) {
  constexpr std::array<std::string_view, 5> kVerbs = {"calibrate", "search", "evaluate", "bench", "selftest"};
  return argc > 1 && std::find(kVerbs.begin(), kVerbs.end(), std::string_view(argv[1])) != kVerbs.end();
}

// A command line that cannot be read fails on all ranks of a job alike: they meet in MPI and one of them speaks. A
// rank that ended without having joined would make mpirun kill the others, perhaps before any has spoken.
std::function<int()> parse_together(const std::vector<std::string>& arguments) {
  try {
    return parse_command_line(arguments);
  } catch (...) {
    if (!runtime::may_have_peers()) throw;
    runtime::MpiSession session;
    session.agree([failure = std::current_exception()] { std::rethrow_exception(failure); });
    throw;
  }
}

int report_failure() {
  try {
    throw;
  } catch (const runtime::AgreedFailure& agreed) {
    return static_cast<int>(agreed.code);  // its line has been printed
  } catch (...) {
    const runtime::CaughtError error = runtime::describe_current_exception();
    std::fprintf(stderr, "winnow: %s\n", one_line(error.message).c_str());
    return static_cast<int>(error.code);
  }
}

// The table or JSON of a verb may be all that it was run for, and a full disk shows only when stdout is flushed.
int check_output(int code) {
  const bool is_flushed = std::fflush(stdout) == 0;
  if (code == 0 && (!is_flushed || std::ferror(stdout) != 0)) {
    fail(ExitCode::kIoError, std::string("standard output could not be written") +
                                 (is_flushed ? "" : std::string(": ") + std::strerror(errno)) +
                                 "; what was printed is incomplete");
  }
  return code;
}

}  // namespace
}  // namespace winnow::program

int main(int argc, char** argv) {
  if (const auto code = winnow::storage::serve_if_asked(argc, argv)) return *code;
  if (winnow::program::multiplies(argc, argv)) winnow::cpu::restart_with_better_blas_core(argv);
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    winnow::cli::prepare_surroundings(arguments);
    return winnow::program::check_output(winnow::program::parse_together(arguments)());
  } catch (...) {
    return winnow::program::report_failure();
  }
}
