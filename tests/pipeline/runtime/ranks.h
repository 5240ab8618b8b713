// Runs programs of the build from a test, alone or as ranks under mpirun: MPI needs processes of its own.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/scratch.h"

namespace winnow {

struct Outcome {
  int exit_code = -1;  // -1: a signal ended it
  std::string output;  // stdout and stderr
};

// `command` begins with a program of the build.
inline Outcome run_program(const std::string& command, const std::string& before = "") {
  const ScratchDirectory scratch;
  const auto log = scratch.path() / "log";
  const std::string line = before + " " + WINNOW_BUILD_DIR + "/" + command + " > " + log.string() + " 2>&1";
  const int status = std::system(line.c_str());
  std::ostringstream text;
  text << std::ifstream(log).rdbuf();
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text.str()};
}

// The same as `n_ranks` processes, with settings like "NAME=VALUE" in their environment.
inline Outcome run_ranks(int n_ranks, const std::string& command, const std::string& settings = "") {
  // Open MPI unloads its parts before LeakSanitizer reports, so that leaks.supp cannot name what they keep.
  return run_program(command, "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 " +
                                  settings + " " + WINNOW_MPIRUN + " -n " + std::to_string(n_ranks) +
                                  " --oversubscribe --bind-to none");
}

}  // namespace winnow
