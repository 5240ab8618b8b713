#include "results/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "kernels/error.h"

namespace winnow {
namespace {

// An open descriptor with one owner.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  // Explicit, because some file systems report a failed write only here.
  int close() {
    const int status = ::close(fd_);
    fd_ = -1;
    return status;
  }

 private:
  int fd_;
};

bool is_storage_failure(int error) { return error == ENOSPC || error == EDQUOT || error == EIO || error == EFBIG; }

[[noreturn]] void fail_write(const std::filesystem::path& path, const char* what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  fail(ExitCode::kIoError, path.string() + ": " + what + " failed: " + std::strerror(error) +
                               (full ? "; free some space and repeat the command" : ""));
}

void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& path) {
  // Linux writes at most 0x7ffff000 bytes a call; smaller steps cost nothing.
  constexpr std::size_t kStep = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min(bytes.size(), kStep));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_write(path, "write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void sync_directory(const std::filesystem::path& directory) {
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some network file systems cannot sync a directory (EINVAL); there the rename is as durable as it gets.
  if (fd.get() >= 0 && ::fsync(fd.get()) != 0 && is_storage_failure(errno)) fail_write(directory, "fsync", errno);
}

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  // A rename would put a regular file in the place of a device or pipe.
  std::error_code unknown;
  const std::filesystem::file_status old = std::filesystem::status(path, unknown);
  if (std::filesystem::exists(old) && !std::filesystem::is_regular_file(old)) {
    fail(ExitCode::kCannotCreate, path.string() + ": is there already and is no regular file; give another name");
  }
  const std::filesystem::path part = path.string() + kPartSuffix;
  Descriptor fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (fd.get() < 0) {
    const int error = errno;
    if (is_storage_failure(error)) fail_write(part, "open", error);
    fail(ExitCode::kCannotCreate, part.string() + ": cannot be created: " + std::strerror(error) +
                                      "; choose a directory that exists and is writable");
  }
  try {
    write_all(fd.get(), bytes, part);
    if (::fsync(fd.get()) != 0) fail_write(part, "fsync", errno);
    if (fd.close() != 0) fail_write(part, "close", errno);
    if (::rename(part.c_str(), path.c_str()) != 0) {
      const int error = errno;
      if (is_storage_failure(error)) fail_write(path, "rename", error);
      fail(ExitCode::kCannotCreate, path.string() + ": cannot be replaced: " + std::strerror(error));
    }
  } catch (...) {
    ::unlink(part.c_str());
    throw;
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

void refuse_to_replace(const std::string& flag, const std::filesystem::path& output,
                       const std::vector<std::filesystem::path>& kept) {
  std::error_code unknown;  // a path that cannot be resolved is empty, and no file that could be replaced
  const std::filesystem::path resolved = std::filesystem::weakly_canonical(output, unknown);
  if (resolved.empty()) return;
  for (const std::filesystem::path& file : kept) {
    if (std::filesystem::weakly_canonical(file, unknown) != resolved) continue;
    fail(ExitCode::kUsage,
         flag + " " + output.string() + ": would replace a file that this command needs" + "; give another name");
  }
}

}  // namespace winnow
