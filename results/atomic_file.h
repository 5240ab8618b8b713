// A file that is there whole or not at all: written under a temporary name in the same directory, synced, renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace winnow {

// Suffix of the temporary name. Whoever finds such a file may delete it: its writer died.
inline constexpr const char* kPartSuffix = ".part";

// Writes `bytes` to `path` + kPartSuffix, syncs it, renames it to `path` (replacing what is there) and syncs the
// directory, so that a crash at any moment leaves the old file or the new one. On failure the temporary file is
// removed. Throws Error(kCannotCreate) where the directory does not let a file be created, Error(kIoError) for a full
// disk and every other failed write.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

// For a file that a command is about to replace: throws Error(kUsage) where `output`, as flag `flag` names it, is one
// of `kept`, files that the command reads or keeps elsewhere, through whatever links and spellings.
void refuse_to_replace(const std::string& flag, const std::filesystem::path& output,
                       const std::vector<std::filesystem::path>& kept);

}  // namespace winnow
