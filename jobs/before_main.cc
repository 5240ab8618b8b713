// What must be done before the constructors of the libraries run: some of them start threads.
//
// Stop signals wait until main has decided what they mean (surroundings.h). Threads that libraries start do not take
// them then, and none is lost when the program starts itself again.
//
// OpenBLAS must not start threads of its own where address space is limited. It starts one for each core, which winnow
// never uses: products run on winnow's own threads. Each takes 128 MiB of address space and a stack. Where the limit
// refuses the first, the thread asks again for ever, and the process cannot even end, as it waits for the thread; where
// it refuses the stack, OpenBLAS ends the process by SIGINT. A variable of the environment prevents all that, so the
// program starts itself once more with it. It costs some 50 ms, hence only where there is a limit.
//
// This file, like processor.cc, is compiled for the oldest processor.
#include <sys/resource.h>

#include <csignal>
#include <cstddef>
#include <cstring>

#include "base/restart.h"
#include "base/stop_signals.h"

namespace winnow::program {
namespace {

WINNOW_BEFORE_ALL void hold_stop_signals() {
  sigset_t stops;
  sigemptyset(&stops);
  for (const int number : kHeldSignals) sigaddset(&stops, number);
  sigprocmask(SIG_BLOCK, &stops, nullptr);
}

WINNOW_BEFORE_ALL bool is_limited(__rlimit_resource_t resource) {
  static struct rlimit limit {};
  return getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

WINNOW_BEFORE_ALL void restrain_openblas(char** argv, char** environment) {
  constexpr std::size_t kMostVariables = 8190;
  static char* extended[kMostVariables + 2];
  static char setting[] = "OPENBLAS_NUM_THREADS=1";
  constexpr std::size_t kNameLength = sizeof "OPENBLAS_NUM_THREADS=" - 1;

  if (!is_limited(RLIMIT_AS) && !is_limited(RLIMIT_DATA)) return;
  std::size_t n = 0;
  for (; environment[n] != nullptr && n < kMostVariables; ++n) {
    if (std::strncmp(environment[n], setting, kNameLength) == 0) return;
    extended[n] = environment[n];
  }
  if (environment[n] != nullptr) return;
  extended[n] = setting;
  restart(argv, extended);
  // It cannot be started again: it goes on as it is.
}

WINNOW_BEFORE_ALL void prepare(int /*argc*/, char** argv, char** environment) {
  hold_stop_signals();
  restrain_openblas(argv, environment);
}

__attribute__((section(".preinit_array"), used)) void (*const before_main)(int, char**, char**) = prepare;

}  // namespace
}  // namespace winnow::program
