#include "base/file_stamp.h"

#include <sys/stat.h>

#include <ctime>

namespace winnow {

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kTick = kSecond / 4;

FileStamp stamp(const struct stat& status) {
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .size_bytes = status.st_size,
          .changed_ns = int64_t{status.st_ctim.tv_sec} * kSecond + status.st_ctim.tv_nsec};
}

}  // namespace

std::optional<FileStamp> FileStamp::of(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  return stamp(status);
}

std::optional<FileStamp> FileStamp::of_descriptor(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return std::nullopt;
  return stamp(status);
}

bool FileStamp::is_settled() const {
  struct timespec now {};
  // The clock that Linux takes these times from.
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * kSecond + now.tv_nsec - changed_ns > kTick;
}

}  // namespace winnow
