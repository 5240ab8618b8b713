#include "jobs/sweep/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/pipe.h"
#include "base/stop_signals.h"
#include "pipeline/runtime/stop.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

// In the child, between fork and exec: returns only when something failed, with errno.
void become(char* const* argv, int log, int null, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(143);  // it died before this
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(null, STDIN_FILENO);
  if (log >= 0) {
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
  }
  execvp(argv[0], argv);
}

}  // namespace

SignalQueue::SignalQueue() {
  sigemptyset(&waited_);
  for (const int number : kStopSignals) sigaddset(&waited_, number);
  sigaddset(&waited_, SIGCHLD);
  struct sigaction hangup {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&waited_, SIGHUP);
  sigprocmask(SIG_BLOCK, &waited_, &former_);
  if (const int number = runtime::take_remembered_signal(); number != 0) raise(number);
}

SignalQueue::~SignalQueue() { sigprocmask(SIG_SETMASK, &former_, nullptr); }

std::optional<int> SignalQueue::next(double seconds) {
  timespec time{};
  time.tv_sec = static_cast<time_t>(seconds);
  time.tv_nsec = static_cast<long>((seconds - static_cast<double>(time.tv_sec)) * 1e9);
  const int number = sigtimedwait(&waited_, nullptr, &time);
  if (number < 0) return std::nullopt;
  return number;
}

pid_t start_child(const std::vector<std::string>& words, const ChildOptions& options) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
  FileDescriptor log;
  if (!options.log.empty()) {
    log = FileDescriptor(
        open(options.log.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (!log) {
      fail(errno == ENOSPC ? ExitCode::kIoError : ExitCode::kCannotCreate,
           options.log.string() + ": cannot be created: " + std::strerror(errno));
    }
  }
  const FileDescriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  // exec closes the pipe; a failed one says why through it.
  Pipe pipe;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    become(argv.data(), log.get(), null.get(), parent);
    const int reason = errno;
    const ssize_t ignored = write(pipe.write_end(), &reason, sizeof reason);
    static_cast<void>(ignored);
    _exit(127);
  }
  const int fork_error = errno;
  pipe.close_write_end();
  int reason = 0;
  const bool has_failed = child < 0 || read(pipe.read_end(), &reason, sizeof reason) == sizeof reason;
  if (child < 0) reason = fork_error;
  if (has_failed) {
    if (child > 0) waitpid(child, nullptr, 0);
    fail(ExitCode::kUnavailable,
         words.front() + " cannot be started: " + std::strerror(reason) + "; install it or put it on PATH");
  }
  return child;
}

std::optional<int> poll_child(pid_t child) {
  int status = 0;
  pid_t ended = 0;
  do {
    ended = waitpid(child, &status, WNOHANG);
  } while (ended < 0 && errno == EINTR);
  if (ended != child) return std::nullopt;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

fs::path own_executable() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) fail(ExitCode::kInternal, "/proc/self/exe cannot be read: " + error.message());
  return self;
}

}  // namespace winnow::sweep
