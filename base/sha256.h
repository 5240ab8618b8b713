// SHA-256, for the identity of files and of measurements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace winnow {

// Returns the 32 bytes, for hashes of hashes.
std::string sha256_digest(std::span<const std::byte> bytes);
// Return the hash in hex, 64 characters.
std::string sha256_of(std::span<const std::byte> bytes);
std::string sha256_of(const std::string& text);
// Hashes the first n_bytes of a file. Throws Error(kNoInput) when it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path, int64_t n_bytes = INT64_MAX);

}  // namespace winnow
