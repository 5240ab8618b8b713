#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = ".winnow-";
constexpr std::string_view kSuffix = ".part";
constexpr std::size_t kDigits = 16;
constexpr int kAttempts = 100;

bool is_storage_failure(int error) { return error == ENOSPC || error == EDQUOT || error == EIO || error == EFBIG; }

[[noreturn]] void fail_write(const fs::path& path, const char* what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  fail(ExitCode::kIoError, path.string() + ": " + what + " failed: " + std::strerror(error) +
                               (full ? "; free some space and repeat the command" : ""));
}

[[noreturn]] void fail_creation(const fs::path& path, int error) {
  if (is_storage_failure(error)) fail_write(path, "open", error);
  fail(ExitCode::kCannotCreate, path.string() + ": cannot be created: " + std::strerror(error) +
                                    "; choose a directory that exists and is writable");
}

fs::path directory_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void write_all(int fd, std::span<const std::byte> bytes, const fs::path& path) {
  // Linux writes at most 0x7ffff000 bytes a call; smaller steps cost nothing.
  constexpr std::size_t kStep = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min(bytes.size(), kStep));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_write(path, "write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void sync_directory(const fs::path& directory) {
  const FileDescriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some network file systems cannot sync a directory (EINVAL); there the rename is as durable as it gets.
  if (fd.get() >= 0 && ::fsync(fd.get()) != 0 && is_storage_failure(errno)) fail_write(directory, "fsync", errno);
}

// A new file beside `path`, never one that is there or that a link leads to. Its lock says that its writer lives: where
// the file system has none, nobody takes the file for a leftover. `part` becomes its path.
FileDescriptor create_beside(const fs::path& path, mode_t mode, fs::path& part) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    part = directory_of(path) / new_temporary_name();
    FileDescriptor fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
    if (fd) {
      static_cast<void>(::flock(fd.get(), LOCK_EX | LOCK_NB));
      return fd;
    }
    if (errno != EEXIST) break;
  }
  fail_creation(path, errno);
}

// What the new file takes over from the one that it replaces. Only root may give a file to somebody else, and a group
// that is not ours cannot be kept: then it is better that the group loses its rights than that another one gets them.
void take_over(int fd, const struct stat& old, const fs::path& path) {
  mode_t mode = old.st_mode & 0777;
  struct stat now {};
  if (::fstat(fd, &now) != 0) fail_write(path, "fstat", errno);
  if (now.st_uid != old.st_uid && ::fchown(fd, old.st_uid, static_cast<gid_t>(-1)) != 0 && errno != EPERM) {
    fail_write(path, "fchown", errno);
  }
  if (now.st_gid != old.st_gid && ::fchown(fd, static_cast<uid_t>(-1), old.st_gid) != 0) mode &= ~mode_t{070};
  if (::fchmod(fd, mode) != 0 && errno != EPERM) fail_write(path, "fchmod", errno);
}

}  // namespace

std::string new_temporary_name() {
  std::random_device random;
  char digits[kDigits + 1];
  std::snprintf(digits, sizeof digits, "%08x%08x", static_cast<unsigned>(random()), static_cast<unsigned>(random()));
  return std::string(kPrefix).append(digits).append(kSuffix);
}

bool is_temporary_name(const std::string& name) {
  return name.size() == kPrefix.size() + kDigits + kSuffix.size() && name.starts_with(kPrefix) &&
         name.ends_with(kSuffix) &&
         name.substr(kPrefix.size(), kDigits).find_first_not_of("0123456789abcdef") == std::string::npos;
}

void write_file_atomically(const fs::path& path, std::span<const std::byte> bytes, FileUse use) {
  struct stat old {};
  const bool is_there = ::lstat(path.c_str(), &old) == 0;
  // A rename would put a regular file in the place of a link, device or pipe.
  if (is_there && !S_ISREG(old.st_mode)) {
    fail(ExitCode::kCannotCreate, path.string() + ": " + (S_ISLNK(old.st_mode) ? "is a link" : "is there already") +
                                      " and is no regular file; give another name");
  }
  fs::path part;
  FileDescriptor fd = create_beside(path, use == FileUse::kProgram ? 0777 : 0666, part);
  const FileDescriptor lock_holder(::dup(fd.get()));  // the lock lasts until the file has its name
  try {
    if (is_there) take_over(fd.get(), old, path);
    write_all(fd.get(), bytes, path);
    if (::fsync(fd.get()) != 0) fail_write(path, "fsync", errno);
    if (fd.close() != 0) fail_write(path, "close", errno);
    if (::rename(part.c_str(), path.c_str()) != 0) {
      const int error = errno;
      if (is_storage_failure(error)) fail_write(path, "rename", error);
      fail(ExitCode::kCannotCreate, path.string() + ": cannot be replaced: " + std::strerror(error));
    }
  } catch (...) {
    ::unlink(part.c_str());
    throw;
  }
  sync_directory(directory_of(path));
}

void write_file_atomically(const fs::path& path, std::string_view text, FileUse use) {
  write_file_atomically(path, std::as_bytes(std::span(text)), use);
}

void require_room_for_files(const fs::path& directory, const fs::path& path) {
  // A file without a name does not even touch the directory's time; not every file system has them.
  if (FileDescriptor(::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600))) return;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) fail_creation(path, errno);
  fs::path part;
  create_beside(directory / path.filename(), 0600, part);
  ::unlink(part.c_str());
}

void remove_leftovers(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (is_temporary_name(entry.path().filename().string())) found.push_back(entry.path());
  }
  for (const fs::path& path : found) {
    struct stat status {};
    const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    const bool is_own = fd.get() >= 0 && ::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode) &&
                        status.st_uid == ::geteuid() && status.st_nlink == 1;
    if (is_own && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
  }
}

}  // namespace winnow
