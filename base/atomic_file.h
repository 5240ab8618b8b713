// A file that is there whole or not at all: written under a temporary name in the same directory, synced, renamed.
//
// base/output_path.h checks before the work whether a path may be written.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace winnow {

// Returns ".winnow-", 16 hexadecimal digits, ".part": a name that nobody else gives a file. Its length does not grow
// with the final name, which may be the longest that the file system takes.
std::string new_temporary_name();
bool is_temporary_name(const std::string& name);

// Says whether a new file may be executed.
enum class FileUse { kData, kProgram };

// Writes `bytes` to a new file beside `path`, syncs it, renames it to `path` (replacing a regular file that is there)
// and syncs the directory, so that a crash at any moment leaves the old file or the new one. The new file has the
// permissions of the one that it replaces, and its owner where the system allows that; else those that the umask gives.
// On failure nothing is left. No link is followed. Throws Error(kCannotCreate) where the directory does not let a file
// be created or something else than a regular file has the name, Error(kIoError) for a full disk and every other failed
// write.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                           FileUse use = FileUse::kData);
void write_file_atomically(const std::filesystem::path& path, std::string_view text, FileUse use = FileUse::kData);

// Throws Error as write_file_atomically would where no file can be created in that directory, which stays as it is.
// `path` is what messages name.
void require_room_for_files(const std::filesystem::path& directory, const std::filesystem::path& path);

// Removes the temporary files of dead writers: regular files of this user with such a name that nobody holds open to
// write. Whatever else is there stays.
void remove_leftovers(const std::filesystem::path& directory);

}  // namespace winnow
