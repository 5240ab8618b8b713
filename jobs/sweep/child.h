// Runs a child process and passes signals on to it. Arguments go as they are, without a shell.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace winnow::sweep {

// Blocks USR1, TERM, INT, CHLD, and HUP unless it is ignored (nohup), so that next() hands them out one by one.
// Children start with the signals as they were before. There is one object at a time in a process. A stop signal that
// was remembered before (pipeline/runtime/stop.h) is the first.
class SignalQueue {
 public:
  SignalQueue();
  SignalQueue(const SignalQueue&) = delete;
  SignalQueue& operator=(const SignalQueue&) = delete;
  ~SignalQueue();

  // Returns the next signal; none after that many seconds.
  std::optional<int> next(double seconds);

 private:
  sigset_t waited_{};
  sigset_t former_{};
};

struct ChildOptions {
  std::filesystem::path log;                                     // stdout and stderr go there; "": to this process's
  std::vector<std::pair<std::string, std::string>> environment;  // set besides
};

// Starts it in a process group of its own, so that a terminal's Ctrl-C reaches the parent alone, which passes it on; it
// gets SIGTERM when the parent dies. Throws Error(kUnavailable) where the program cannot be started.
pid_t start_child(const std::vector<std::string>& words, const ChildOptions& options);
// Returns the exit code of a child that has ended, 128 + signal where a signal ended it; none while it runs.
std::optional<int> poll_child(pid_t child);

// Returns the path of the running executable.
std::filesystem::path own_executable();

}  // namespace winnow::sweep
