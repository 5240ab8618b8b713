#include "jobs/sweep/program_output.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/pipe.h"

extern char** environ;

namespace winnow::sweep {
namespace {

constexpr std::size_t kMaxWords = 400;                     // characters of a program's message that an error quotes
constexpr std::size_t kMaxOutput = std::size_t{64} << 20;  // bytes of each stream that are kept

// How the child begins: nothing to read, its output into the pipes, no signal blocked (run-cell blocks those it waits
// for). In a process group of its own, so that a wrapper can be ended with what it has started.
class SpawnSettings {
 public:
  SpawnSettings(const Pipe& out, const Pipe& err) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, out.write_end(), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, err.write_end(), STDERR_FILENO);
    posix_spawnattr_init(&attributes_);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> filtered_environment(const ProgramOptions& options) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    const bool is_dropped = std::any_of(options.dropped_prefixes.begin(), options.dropped_prefixes.end(),
                                        [&](const std::string& prefix) { return name.starts_with(prefix); });
    const bool is_kept = std::find(options.kept.begin(), options.kept.end(), name) != options.kept.end();
    if (!is_dropped || is_kept) result.push_back(text);
  }
  return result;
}

// Both pipes at once: a program that fills one while nobody reads it would wait for ever. False where the deadline
// came.
bool read_both(const Pipe& out, const Pipe& err, std::optional<Clock::time_point> deadline, ProgramOutput& result) {
  std::array<pollfd, 2> waited{pollfd{out.read_end(), POLLIN, 0}, pollfd{err.read_end(), POLLIN, 0}};
  const std::array<std::string*, 2> texts{&result.out, &result.err};
  std::array<char, 65536> buffer{};
  while (waited[0].fd >= 0 || waited[1].fd >= 0) {
    int wait_ms = -1;
    if (deadline) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(*deadline - Clock::now());
      if (left.count() <= 0) return false;
      wait_ms = static_cast<int>(left.count()) + 1;
    }
    if (poll(waited.data(), waited.size(), wait_ms) < 0 && errno != EINTR) return true;
    for (std::size_t i = 0; i < waited.size(); ++i) {
      if (waited[i].fd < 0 || waited[i].revents == 0) continue;
      const ssize_t n = read(waited[i].fd, buffer.data(), buffer.size());
      if (n > 0) {
        const std::size_t kept = std::min(static_cast<std::size_t>(n), kMaxOutput - texts[i]->size());
        texts[i]->append(buffer.data(), kept);
        result.is_cut = result.is_cut || kept < static_cast<std::size_t>(n);
      } else if (n == 0 || errno != EINTR) {
        waited[i].fd = -1;  // poll passes over it
      }
    }
  }
  return true;
}

}  // namespace

std::string ProgramOutput::words() const {
  std::string text;
  std::istringstream lines(err.empty() ? out.substr(0, 4 * kMaxWords) : err);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) text += (text.empty() ? "" : "; ") + line;
  }
  if (text.size() > kMaxWords) text = text.substr(0, kMaxWords) + "...";
  if (is_timed_out) return "it did not end in time" + (text.empty() ? "" : ": " + text);
  return text.empty() ? "it said nothing, exit code " + std::to_string(exit_code) : text;
}

std::optional<ProgramOutput> run_program(const std::vector<std::string>& words, const ProgramOptions& options) {
  std::vector<std::string> arguments = words;
  std::vector<std::string> variables = filtered_environment(options);
  ProgramOutput result;
  Pipe out, err;
  pid_t child = 0;
  {
    const SpawnSettings settings(out, err);
    const int error = posix_spawnp(&child, words.front().c_str(), settings.actions(), settings.attributes(),
                                   pointers(arguments).data(), pointers(variables).data());
    if (error == ENOENT || error == EACCES) return std::nullopt;
    if (error != 0) fail(ExitCode::kInternal, words.front() + " cannot be started: " + std::strerror(error));
  }
  out.close_write_end();
  err.close_write_end();
  std::optional<Clock::time_point> deadline;
  if (options.time_limit.count() > 0) deadline = Clock::now() + options.time_limit;
  result.is_timed_out = !read_both(out, err, deadline, result);
  if (result.is_timed_out) kill(-child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail(ExitCode::kInternal, words.front() + ": waitpid: " + std::strerror(errno));
  }
  result.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

bool has_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access(((folder.empty() ? "." : folder) + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

}  // namespace winnow::sweep
