// Keeps OpenBLAS from starting threads of its own where address space is limited.
//
// It starts one for each core before main, which winnow never uses: products run on winnow's own threads. Each takes
// 128 MiB of address space and a stack. Where the limit refuses the first, the thread asks again for ever, and the
// process cannot even end, as it waits for the thread; where it refuses the stack, OpenBLAS ends the process by SIGINT.
// A variable of the environment prevents all that, and must be there before the constructors of the libraries run. So
// the program starts itself once more with it. It costs some 50 ms, hence only where there is a limit.
//
// This file, like processor.cc, is compiled for the oldest processor.
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace winnow {
namespace {

bool is_limited(__rlimit_resource_t resource) {
  struct rlimit limit {};
  return getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

// Nothing is there yet but the C library: no constructor has run, neither of a sanitizer.
__attribute__((no_sanitize("address", "thread", "undefined"))) void restrain_openblas(int /*argc*/, char** argv,
                                                                                      char** environment) {
  static std::array<char*, 8192> extended{};
  static std::array<char, 4096> program{};
  static char setting[] = "OPENBLAS_NUM_THREADS=1";
  constexpr std::size_t kNameLength = sizeof "OPENBLAS_NUM_THREADS=" - 1;

  if (!is_limited(RLIMIT_AS) && !is_limited(RLIMIT_DATA)) return;
  std::size_t n = 0;
  for (; environment[n] != nullptr && n + 2 < extended.size(); ++n) {
    if (std::strncmp(environment[n], setting, kNameLength) == 0) return;
    extended[n] = environment[n];
  }
  if (environment[n] != nullptr) return;
  extended[n] = setting;
  if (readlink("/proc/self/exe", program.data(), program.size() - 1) <= 0) return;
  execve(program.data(), argv, extended.data());
  // It cannot be started again: it goes on as it is.
}

__attribute__((section(".preinit_array"), used)) void (*const restrain)(int, char**, char**) = restrain_openblas;

}  // namespace
}  // namespace winnow
