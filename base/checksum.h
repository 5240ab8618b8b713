// Checksums of the files that winnow writes: they show what a disk or a copy has changed before a figure is printed.
// They protect from accidents, not from people: whoever changes a file on purpose can give it another checksum.
//
// An HDF5 file has its checksum behind its end, over every byte before it. Readers of HDF5 stop at the end that the
// superblock states, and programs that write to the file cut off what is behind it. So nothing is parsed before it is
// known to be whole, and a file that somebody has changed on purpose has no checksum rather than a wrong one.
//
// A JSON object has its checksum among its keys, over the compact text of all others in the order of their names. So it
// may be indented in another way, or be written again by another program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

namespace winnow {

// kAbsent: the file is of an older winnow, or another program has written to it.
enum class Checksum { kAbsent, kMatches };

// ---- HDF5
inline constexpr std::size_t kChecksumBytes = 80;
// Returns what goes behind the content: a line break, "winnow sha256 ", 64 digits, a line break. It is kChecksumBytes
// long.
std::string hdf5_checksum(std::span<const std::byte> content);
// Returns the length of a file, bytes, by its superblock, which is its first bytes; 0 where that is not a superblock of
// winnow's versions (2 or 3).
inline constexpr std::size_t kSuperblockBytes = 48;
uint64_t hdf5_end(std::span<const std::byte, kSuperblockBytes> superblock);
// Compares a file with its checksum. Throws Error(kBadData) where its bytes differ or it was cut off within the
// checksum, Error(kNoInput) where reading fails. What is not a regular file, or cannot be opened, has no checksum.
Checksum check_hdf5(const std::filesystem::path& path);

// ---- JSON
inline constexpr const char* kChecksumKey = "content_sha256";
// Returns the SHA-256 of the object without that key, on one line, keys sorted, numbers as Python's json writes them.
std::string json_checksum(const nlohmann::json& object, const std::string& key = kChecksumKey);
// Compares an object with its checksum. Throws Error(kBadData) where they differ; in the message `origin` names the
// file and `advice` says what to do.
Checksum check_json(const nlohmann::json& object, const std::string& origin, const std::string& advice,
                    const std::string& key = kChecksumKey);

// Says on stderr that a file has no checksum.
void note_no_checksum(const std::filesystem::path& file);

}  // namespace winnow
