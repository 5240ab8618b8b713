// Starts the program again, for what must be in the environment before its libraries are loaded. The function is in a
// header, and static, as before_main.cc is compiled for the oldest processor.
#pragma once

#include <unistd.h>

// Marks functions that run when only the C library is there: no constructor has run, not even a sanitizer's. So they
// call no function of C++, which a sanitizer would have instrumented.
#define WINNOW_BEFORE_ALL __attribute__((no_sanitize("address", "thread", "undefined")))

namespace winnow {

// Replaces this process by the same program with that environment. Returns only where that fails, because /proc is not
// mounted.
WINNOW_BEFORE_ALL static inline void restart(char** argv, char** environment) {
  static char program[4096];
  // By its name: as /proc/self/exe it would be "exe" in lists of processes.
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  execve(program, argv, environment);
}

}  // namespace winnow
