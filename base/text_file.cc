#include "base/text_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace winnow {
namespace {

FileText::Status kind_of(mode_t mode) {
  if (S_ISREG(mode)) return FileText::Status::kDone;
  return S_ISDIR(mode) ? FileText::Status::kDirectory : FileText::Status::kSpecial;
}

// Whether there is something to read, or the end of it.
FileText::Status wait_for(int file, int seconds) {
  pollfd readable{.fd = file, .events = POLLIN, .revents = 0};
  int n_ready = 0;
  do {
    n_ready = ::poll(&readable, 1, seconds * 1000);
  } while (n_ready < 0 && errno == EINTR);
  return n_ready == 0 ? FileText::Status::kSilent : n_ready < 0 ? FileText::Status::kFailed : FileText::Status::kDone;
}

}  // namespace

FileText read_file(const std::filesystem::path& path, const ReadLimits& limits) {
  FileText file;
  const auto end_with = [&](FileText::Status status) {
    file.error = status == FileText::Status::kFailed ? errno : 0;
    file.status = status;
    return file;
  };
  struct stat status {};
  // Before it is opened, which moves a tape and waits for a line.
  if (::stat(path.c_str(), &status) != 0) return end_with(FileText::Status::kFailed);
  const bool takes_pipes = limits.pipe_seconds > 0;
  if (!takes_pipes && kind_of(status.st_mode) != FileText::Status::kDone) return end_with(kind_of(status.st_mode));
  const FileDescriptor open_file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (open_file.get() < 0 || ::fstat(open_file.get(), &status) != 0) return end_with(FileText::Status::kFailed);
  if (!takes_pipes && kind_of(status.st_mode) != FileText::Status::kDone) return end_with(kind_of(status.st_mode));
  std::array<char, 1 << 16> piece{};
  while (file.text.size() <= limits.max_bytes) {  // whatever the size is said to be: files of /proc have none
    if (takes_pipes) {
      if (const FileText::Status waited = wait_for(open_file.get(), limits.pipe_seconds);
          waited != FileText::Status::kDone) {
        return end_with(waited);
      }
    }
    const ssize_t n = ::read(open_file.get(), piece.data(), piece.size());
    if (n == 0) return file;
    if (n < 0 && (errno == EINTR || (takes_pipes && errno == EAGAIN))) continue;
    if (n < 0) return end_with(FileText::Status::kFailed);
    file.text.append(piece.data(), static_cast<std::size_t>(n));
  }
  return end_with(FileText::Status::kTooLarge);
}

std::string read_text(const std::filesystem::path& path, std::size_t max_bytes) {
  FileText file = read_file(path, {.max_bytes = max_bytes});
  if (file.status == FileText::Status::kDone) return std::move(file.text);
  if (file.status == FileText::Status::kTooLarge) {
    fail(ExitCode::kBadData,
         path.string() + ": expected at most " + std::to_string(max_bytes >> 20) + " MiB of JSON, found more");
  }
  fail(ExitCode::kNoInput,
       path.string() + ": cannot be read: " +
           (file.status == FileText::Status::kFailed ? std::strerror(file.error) : "not a regular file"));
}

}  // namespace winnow
