// Runs a short program and keeps what it says. Arguments go as they are: no shell is between.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace winnow {

struct ProgramOutput {
  int exit_code = 0;  // 128 + signal where a signal ended it
  std::string out;
  std::string err;

  // stderr in one line, at most a few hundred characters: the program's own words, for a message.
  std::string words() const;
};

// Waits for its end. None where there is no such program. `dropped_prefix`: environment variables that begin so are not
// passed on, but for those in `kept`.
struct ProgramEnvironment {
  std::string dropped_prefix;
  std::vector<std::string> kept;
};
// Throws Error(kInternal) where the system has no process or pipe left.
std::optional<ProgramOutput> run_program(const std::vector<std::string>& words,
                                         const ProgramEnvironment& environment = {});

// Whether PATH has it.
bool has_program(const std::string& name);

}  // namespace winnow
