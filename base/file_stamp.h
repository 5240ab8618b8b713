// Tells whether a file is still the one that was read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace winnow {

// Whoever writes to a file or puts another in its place changes one of these. The time of modification is not among
// them: every program can set it back, and no program the time of the last change (ctime).
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size_bytes = 0;
  int64_t changed_ns = 0;  // ctime, since 1970

  bool operator==(const FileStamp&) const = default;

  // Returns the stamp of the file that `path` leads to, through links; none where there is no file or it cannot be
  // reached.
  static std::optional<FileStamp> of(const std::filesystem::path& path);
  // Returns the stamp of an open file; none where the system refuses.
  static std::optional<FileStamp> of_descriptor(int fd);

  // Returns true if the last change is so long ago that another one cannot have the same time: the clocks of file
  // systems tick a few times a second at worst. What was read from a file that is not settled must not be cached.
  bool is_settled() const;
};

}  // namespace winnow
