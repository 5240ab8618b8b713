// What tells whether a file is still the one that was read.
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

  // Of the file that `path` leads to, through links. Nothing where there is none, or it cannot be reached.
  static std::optional<FileStamp> of(const std::filesystem::path& path);
  // Of an open file. Nothing where the system refuses.
  static std::optional<FileStamp> of_descriptor(int fd);

  // Whether the last change is so long ago that another one cannot have the same time: the clocks of file systems tick
  // a few times a second at worst. What was learnt from a file that is not settled must not be kept for later.
  bool is_settled() const;
};

}  // namespace winnow
