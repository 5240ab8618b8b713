#include "jobs/cli/surroundings.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "base/error.h"
#include "base/memory_limits.h"
#include "base/stop_signals.h"
#include "pipeline/runtime/stop.h"

namespace winnow::cli {
namespace {

// Threads get a stack of the same size. HDF5 and YAML alone have frames of tens of KiB.
constexpr rlim_t kLeastStackBytes = rlim_t{1} << 20;

void hold_standard_files() {
  for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(file, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest number that is free is this one. Opened for the other direction: reading stdin and writing to stdout
    // fail as they do on a closed file.
    const int direction = file == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    if (open("/dev/null", direction | O_CLOEXEC) < 0) return;  // without /dev/null they stay closed
  }
}

void set_search_path() {
  const char* path = std::getenv("PATH");
  if (path == nullptr || *path == '\0') setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
}

void require_stack() {
  struct rlimit limit {};
  if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= kLeastStackBytes) return;
  limit.rlim_cur = std::min(kLeastStackBytes, limit.rlim_max);
  if (setrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur == kLeastStackBytes) return;
  fail(ExitCode::kOutOfMemory, "the stack is limited to " + std::to_string(limit.rlim_cur >> 10) +
                                   " KiB (ulimit -s), and winnow needs " + std::to_string(kLeastStackBytes >> 10) +
                                   "; raise the limit");
}

// With less than this, what libraries cannot allocate comes out as other errors, or as none.
void require_address_space() {
  constexpr int64_t kLeastBytes = int64_t{32} << 20;
  const int64_t unused = unused_address_space_bytes();
  if (unused >= kLeastBytes) return;
  fail(ExitCode::kOutOfMemory, "the limit of memory (ulimit -v or -d) leaves " + std::to_string(unused >> 20) +
                                   " MiB beside the program itself, which needs " + std::to_string(kLeastBytes >> 20) +
                                   " MiB at least; raise it");
}

// The verbs whose work is resumed by the same command.
bool is_resumable(const std::vector<std::string>& arguments) {
  constexpr std::array kVerbs = {"calibrate", "evaluate", "search"};
  if (arguments.empty()) return false;
  if (arguments[0] == "sweep") return arguments.size() > 1 && arguments[1] == "run-cell";
  return std::find(kVerbs.begin(), kVerbs.end(), arguments[0]) != kVerbs.end();
}

// Those that before_main.cc holds, and whatever the parent process held.
void take_stop_signals() {
  sigset_t stops;
  sigemptyset(&stops);
  for (const int number : kHeldSignals) sigaddset(&stops, number);
  pthread_sigmask(SIG_UNBLOCK, &stops, nullptr);
}

}  // namespace

void prepare_surroundings(const std::vector<std::string>& arguments) {
  hold_standard_files();
  set_search_path();
  std::signal(SIGXFSZ, SIG_IGN);
  if (is_resumable(arguments)) runtime::remember_stop_signals();
  take_stop_signals();
  require_stack();
  require_address_space();
}

}  // namespace winnow::cli
