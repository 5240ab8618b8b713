// Reads text files whole. No function waits for a pipe that nobody writes to, and none reads without end.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace winnow {

// Bound on config.json and the other text files beside the weights.
inline constexpr std::size_t kMaxConfigBytes = std::size_t{16} << 20;

struct FileText {
  enum class Status {
    kDone,
    kFailed,     // a call of the system did, see error
    kDirectory,  // the path leads to one
    kSpecial,    // the path leads to a pipe, socket or device
    kSilent,     // nothing came out of a pipe in time
    kTooLarge,
  };
  std::string text;
  Status status = Status::kDone;
  int error = 0;  // errno of kFailed
};

struct ReadLimits {
  std::size_t max_bytes;
  // Wait for each piece out of a pipe, socket or device; 0: these are not read.
  int pipe_seconds = 0;
};
// Reads a file without throwing Error: for readers that have words of their own for what went wrong, or go on without
// it.
FileText read_file(const std::filesystem::path& path, const ReadLimits& limits);

// Reads the whole of a file of JSON. Throws Error(kNoInput), and Error(kBadData) beyond max_bytes.
std::string read_text(const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace winnow
