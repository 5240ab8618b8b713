// Runs a short program and keeps its output. Arguments go as they are, without a shell.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace winnow::sweep {

// Returns true if a signal ended the program, or what a shell ran for it. 255 is not one: many programs end so when
// they refuse.
inline bool is_signalled(int exit_code) { return exit_code > 128 && exit_code <= 128 + 64; }

struct ProgramOutput {
  int exit_code = 0;  // 128 + signal where a signal ended it
  std::string out;
  std::string err;
  bool is_timed_out = false;  // it was killed, with all that it had started
  bool is_cut = false;        // it printed more than is kept

  // Returns stderr, else stdout, in one line of at most a few hundred characters, for a message.
  std::string words() const;
};

struct ProgramOptions {
  std::vector<std::string> dropped_prefixes;  // environment variables that begin so are not passed on
  std::vector<std::string> kept;              // but these are
  std::chrono::seconds time_limit{0};         // 0: none
};

// Runs a program to its end; none where there is no such program. Throws Error(kInternal) where the system has no
// process or pipe left.
std::optional<ProgramOutput> run_program(const std::vector<std::string>& words, const ProgramOptions& options = {});

// Returns true if PATH has the program.
bool has_program(const std::string& name);

}  // namespace winnow::sweep
