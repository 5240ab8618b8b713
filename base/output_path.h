// Checks whether paths may be written. Every verb asks before it does any work, for all that it will write.
//
// winnow replaces its own files only: an older one of the same kind, or an empty one. It never replaces an input of the
// command, a file in a checkpoint's folder, or a link.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace winnow {

// One file or folder that a command will write.
struct Output {
  enum class Kind {
    kFile,       // its directory must be there
    kFolder,     // made with its parents where it is missing
    kOwnFolder,  // the same, and no link
    kNewFolder,  // must not be there, or be empty; its parent must be there
  };
  std::string flag;  // as messages name it: "--out"; empty: by its path alone
  std::filesystem::path path;
  Kind kind = Kind::kFile;
  std::string what = {};  // of a file: "a selection", as which an older one must be known
  // Returns true if an older file, which is regular and not empty, is of that kind. Must not throw, follow links or
  // wait.
  std::function<bool(const std::filesystem::path&)> is_own = {};
};

// Paths that the command reads, through whatever links and spellings.
struct ReadPaths {
  std::vector<std::filesystem::path> files;
  std::vector<std::filesystem::path> checkpoints;  // folders
};

// Throws Error(kUsage) where an output is one of the files that are read, leads to one, is in a checkpoint's folder
// (one of those that are read, or any other), or is another output. Throws Error(kCannotCreate | kIoError) where
// something else than what winnow replaces is there, and where nothing can be created.
void check_outputs(const std::vector<Output>& outputs, const ReadPaths& read);

}  // namespace winnow
