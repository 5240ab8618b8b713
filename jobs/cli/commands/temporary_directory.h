// A directory under TMPDIR that is removed with its owner.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "base/error.h"

namespace winnow::commands {

class TemporaryDirectory {
 public:
  // Throws Error(kCannotCreate).
  TemporaryDirectory() {
    std::error_code error;
    std::string name = (std::filesystem::temp_directory_path(error) / "winnow-XXXXXX").string();
    if (error || mkdtemp(name.data()) == nullptr) {
      fail(ExitCode::kCannotCreate, "cannot create a temporary directory " + name + "; set TMPDIR to a writable one");
    }
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace winnow::commands
