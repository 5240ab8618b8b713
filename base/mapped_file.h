// A file mapped into memory; its disappearance ends the process with one line.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "base/file_stamp.h"

namespace winnow {

// A regular file mapped read-only. Move only. Bytes that are gone when they are read, because the file was cut short
// meanwhile or its file system fails, end the process with one line that names the file and exit code 65 or 74: the
// system reports them as a signal (SIGBUS) in the middle of whatever reads.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // throws Error(kNoInput)
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  std::span<const std::byte> bytes() const;
  const std::filesystem::path& path() const;
  // Returns the stamp that the file had when it was mapped.
  const FileStamp& stamp() const;

 private:
  struct Map;
  std::unique_ptr<Map> map_;
};

}  // namespace winnow
