#include "base/output_path.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

// What a name leads to: (device, inode), which all names of one file share.
using Identity = std::pair<dev_t, ino_t>;

std::optional<Identity> identity_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return Identity{status.st_dev, status.st_ino};
}

std::string name_of(const Output& output) {
  return (output.flag.empty() ? "" : output.flag + " ") + output.path.string();
}

[[noreturn]] void refuse(const Output& output, const std::string& why, ExitCode code = ExitCode::kCannotCreate) {
  fail(code, name_of(output) + ": " + why);
}

// Without a last "/", which would make the name empty.
fs::path plain(const fs::path& path) {
  return path.has_filename() || !path.has_parent_path() ? path : path.parent_path();
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

// The deepest folder of the path that is there, without links and "..".
fs::path existing_folder(const Output& output, const fs::path& path) {
  std::error_code error;
  fs::path folder = path.empty() ? fs::path(".") : path;
  while (!fs::exists(folder, error)) {
    if (error && error != std::errc::no_such_file_or_directory) {
      refuse(output, "cannot be created: " + error.message() + "; give another name");
    }
    if (fs::is_symlink(fs::symlink_status(folder, error))) {
      refuse(output, "cannot be created: " + folder.string() + " is a link that leads nowhere; give another name");
    }
    const fs::path parent = folder_of(plain(folder));
    if (parent == folder) break;
    folder = parent;
  }
  const fs::path resolved = fs::canonical(folder, error);
  if (error) refuse(output, "cannot be created: " + error.message() + "; give another name");
  if (!fs::is_directory(resolved, error)) {
    refuse(output,
           "the directory cannot be created: a file is in its place, " + folder.string() + "; give another name");
  }
  return resolved;
}

// A folder that holds config.json and safetensors.
bool is_checkpoint(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_regular_file(folder / "config.json", error)) return false;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const fs::path name = entry.path().filename();
    if (name.extension() == ".safetensors" || name == "model.safetensors.index.json") return true;
  }
  return false;
}

// `folder`: resolved.
void refuse_checkpoint(const Output& output, const fs::path& folder, const ReadPaths& read) {
  std::set<Identity> checkpoints;
  for (const fs::path& checkpoint : read.checkpoints) {
    if (const auto identity = identity_of(checkpoint)) checkpoints.insert(*identity);
  }
  const auto fail_for = [&](const fs::path& checkpoint) {
    refuse(output, "is in the folder of a checkpoint, " + checkpoint.string() + "; give a name elsewhere",
           ExitCode::kUsage);
  };
  for (fs::path at = folder;; at = at.parent_path()) {
    const auto identity = identity_of(at);
    if (identity && checkpoints.contains(*identity)) fail_for(at);
    if (at == at.parent_path()) break;
  }
  if (is_checkpoint(folder)) fail_for(folder);
}

// Names, links and hard links of what is read, and of what a checkpoint's links lead to.
void refuse_inputs(const Output& output, const fs::path& path, const ReadPaths& read) {
  const auto identity = identity_of(path);
  std::error_code error;
  if (!identity || fs::is_directory(path, error)) return;
  const auto check = [&](const fs::path& input) {
    if (identity_of(input) != identity) return;
    refuse(output, "would replace a file that this command needs, " + input.string() + "; give another name",
           ExitCode::kUsage);
  };
  for (const fs::path& file : read.files) check(file);
  for (const fs::path& checkpoint : read.checkpoints) {
    for (const auto& entry : fs::directory_iterator(checkpoint, error)) check(entry.path());
  }
}

void check_file(const Output& output, const ReadPaths& read) {
  if (!output.path.has_filename()) refuse(output, "is a directory; name a file");
  const fs::path parent = folder_of(output.path);
  std::error_code error;
  if (!fs::is_directory(parent, error)) {
    refuse(output, "cannot be made; name a file in a directory that is there");
  }
  refuse_inputs(output, output.path, read);
  refuse_checkpoint(output, existing_folder(output, parent), read);
  struct stat there {};
  if (::lstat(output.path.c_str(), &there) == 0) {
    if (S_ISDIR(there.st_mode)) refuse(output, "is a directory; name a file");
    if (S_ISLNK(there.st_mode)) {
      const fs::path target = fs::read_symlink(output.path, error);
      refuse(output, "is a link to " + target.string() +
                         " and is no regular file, and no such link is followed; remove it, or give another name");
    }
    if (!S_ISREG(there.st_mode)) refuse(output, "is there already and is no regular file; give another name");
    if (there.st_size > 0 && output.is_own && !output.is_own(output.path)) {
      refuse(output, "is there already and is not " + output.what + " of winnow's; give another name, or move it away");
    }
  }
  require_room_for_files(parent, output.path);
}

void check_folder(const Output& output, const ReadPaths& read) {
  const fs::path path = plain(output.path);
  std::error_code error;
  if (path.empty()) refuse(output, "is empty; name a folder", ExitCode::kUsage);
  const fs::file_status there = fs::symlink_status(path, error);
  const bool is_new = output.kind == Output::Kind::kNewFolder;
  if (is_new && fs::exists(there) && !(fs::is_directory(there) && fs::is_empty(path, error))) {
    refuse(output, "exists; choose another --out, or remove it");
  }
  if (fs::is_symlink(there) && output.kind != Output::Kind::kFolder) {
    refuse(output, "is a link, and no such link is followed; remove it, or give another name");
  }
  refuse_inputs(output, path, read);
  if (is_new && !fs::is_directory(folder_of(path), error)) {
    refuse(output, "cannot be created; choose a folder whose parent exists and is writable");
  }
  const fs::path existing = existing_folder(output, path);
  refuse_checkpoint(output, existing, read);
  require_room_for_files(is_new ? folder_of(path) : existing, path);
}

// Two names of one place, whether anything is there or not.
fs::path place_of(const fs::path& path) {
  std::error_code error;
  const fs::path name = plain(path);
  const fs::path folder = fs::weakly_canonical(folder_of(name), error);
  return (error ? folder_of(name) : folder) / name.filename();
}

}  // namespace

void check_outputs(const std::vector<Output>& outputs, const ReadPaths& read) {
  std::set<fs::path> places;
  for (const Output& output : outputs) {
    if (!places.insert(place_of(output.path)).second) {
      refuse(output, "would replace a file that this command needs, another of its outputs; give another name",
             ExitCode::kUsage);
    }
  }
  for (const Output& output : outputs) {
    if (output.kind == Output::Kind::kFile) {
      check_file(output, read);
    } else {
      check_folder(output, read);
    }
  }
}

}  // namespace winnow
