#include "pipeline/runtime/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/error.h"
#include "pipeline/runtime/process.h"

namespace winnow::runtime {
namespace {

// Who wrote the lock file: "host pid start", start in ticks (process.h).
struct Holder {
  std::string host;
  int64_t pid = 0;
  int64_t start = 0;

  std::string text() const { return host + " " + std::to_string(pid) + " " + std::to_string(start) + "\n"; }
};

std::string read_start(int fd) {
  std::array<char, 512> text{};
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  return {text.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

Holder parse_holder(const std::string& text) {
  Holder holder;
  std::istringstream fields(text);
  fields >> holder.host >> holder.pid >> holder.start;
  return holder;
}

Holder read_holder(int fd) { return parse_holder(read_start(fd)); }

// Whether the open file is one that RunLock made: with one name, and with a holder in it, or with nothing, as a full
// disk leaves it.
bool is_lock_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink > 1) return false;
  const std::string text = read_start(fd);
  return text.empty() || text == parse_holder(text).text();
}

bool is_dead(const Holder& holder, const std::string& host) {
  if (holder.pid <= 0) return true;
  return holder.host == host && start_ticks(holder.pid) != holder.start;
}

[[noreturn]] void refuse(const std::filesystem::path& path, const Holder& holder) {
  const std::string who =
      holder.pid > 0 ? "process " + std::to_string(holder.pid) + " on " + holder.host : "another process";
  fail(ExitCode::kInterrupted, path.parent_path().string() + ": this run directory is in use by " + who +
                                   "; wait for its end, or give another --out (lock file: " + path.string() + ")");
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& run_directory, const std::string& host, const std::string& name)
    : path_(run_directory / name) {
  // A holder that ends removes the file, so a lock may be won on a file that has no name any more: then again.
  while (!try_take(host)) {
  }
}

bool RunLock::try_take(const std::string& host) {
  // O_NONBLOCK: a pipe in its place must not make us wait.
  file_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666));
  const bool is_link = !file_ && errno == ELOOP;
  // A file whose last name was just removed by its holder is no stranger: the caller tries again.
  if (is_link || (file_ && has_name() && !is_lock_file(file_.get()))) {
    fail(ExitCode::kCannotCreate, path_.string() + ": is no lock file of winnow's" + (is_link ? ", but a link" : "") +
                                      "; move it away, or give another --out");
  }
  if (!file_) {
    const ExitCode code = errno == ENOSPC || errno == EDQUOT ? ExitCode::kIoError : ExitCode::kCannotCreate;
    fail(code,
         path_.string() + ": cannot be created: " + std::strerror(errno) + "; choose a run directory that is writable");
  }
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    const bool is_held = errno == EWOULDBLOCK;
    const Holder holder = read_holder(file_.get());
    if (is_held || !is_dead(holder, host)) refuse(path_, holder);
  }
  if (!has_name()) return false;
  const std::string text = Holder{host, static_cast<int64_t>(::getpid()), start_ticks(::getpid())}.text();
  // On a full disk the lock itself holds; only its text is missing, and a second job is told of "another process".
  const bool is_named = ::ftruncate(file_.get(), 0) == 0 && ::pwrite(file_.get(), text.data(), text.size(), 0) > 0;
  static_cast<void>(is_named);
  return true;
}

bool RunLock::has_name() const {
  struct stat opened {
  }, named{};
  return ::fstat(file_.get(), &opened) == 0 && ::lstat(path_.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

RunLock::~RunLock() {
  if (has_name()) ::unlink(path_.c_str());
}

bool is_locked(const std::filesystem::path& lock_file, const std::string& host) {
  const FileDescriptor file(::open(lock_file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) return false;
  const bool is_taken = is_lock_file(file.get()) && ::flock(file.get(), LOCK_SH | LOCK_NB) != 0;
  return is_taken && (errno == EWOULDBLOCK || !is_dead(read_holder(file.get()), host));
}

}  // namespace winnow::runtime
