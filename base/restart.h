// Starting the program again, for what must be in the environment before its libraries are loaded. In a header, and in
// each file that includes it a function of its own: before_main.cc is compiled for the oldest processor.
#pragma once

#include <unistd.h>

// Of functions that run when nothing is there yet but the C library: no constructor has run, neither of a sanitizer. So
// they call none of C++'s, which a sanitizer would have instrumented.
#define WINNOW_BEFORE_ALL __attribute__((no_sanitize("address", "thread", "undefined")))

namespace winnow {

// Replaces this process by the same program with that environment. Returns where it cannot be: /proc is not mounted.
WINNOW_BEFORE_ALL static inline void restart(char** argv, char** environment) {
  static char program[4096];
  // By its name: as /proc/self/exe it would be "exe" in lists of processes.
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  execve(program, argv, environment);
}

}  // namespace winnow
