// The one error type: what went wrong, where, what to do, and the exit code that a script sees.
#pragma once

#include <stdexcept>
#include <string>

#include "base/utf8.h"

namespace winnow {

// Exit codes of the program, those of BSD's sysexits.h. Part of the command line's contract.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 64,        // flags that make no sense, alone or together
  kBadData = 65,      // checkpoint, calibration file, or a non-finite NLL
  kNoInput = 66,      // an input is missing or unreadable
  kUnavailable = 69,  // no usable GPU
  kInternal = 70,     // a bug, or a dead peer
  kOutOfMemory = 71,
  kCannotCreate = 73,    // output cannot be created
  kIoError = 74,         // disk full, read or write error
  kInterrupted = 75,     // stopped and resumable, or the run directory is locked by a live job
  kConfigMismatch = 78,  // the run directory was made with other settings
};

// Thrown for everything that a user can cause or cure. The message is one line: what, where, what to do.
// It is printed once, by the catch in jobs/main.cc, which adds rank and host.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(one_line(message)), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Thrown to end work where nothing is left to be said. It is not an Error, so that no handler prints it: code that
// knows what a kind of it means catches that kind, all other code lets it pass.
struct Unwinding {};

[[noreturn]] inline void fail(ExitCode code, const std::string& message) { throw Error(code, message); }

}  // namespace winnow
