// Limits that a system sets to processes, and what they leave: control groups of Linux (containers, Slurm, systemd) of
// both versions, and resource limits of the process (ulimit). All are pure functions of files: `root` is "/" except in
// tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace winnow {

// Stands for no limit.
inline constexpr int64_t kUnlimited = INT64_MAX;

// Returns the memory that the groups leave, bytes: the least of limit - use over all of them. Pages of files that the
// kernel can take back count as free, as they do in MemAvailable.
int64_t group_memory_bytes(const std::filesystem::path& root = "/");

// Returns the least processor quota of the groups, in cores; 0: none.
double group_cores(const std::filesystem::path& root = "/");

// Resource limits of a process, bytes; kUnlimited where there is none.
struct ProcessLimits {
  int64_t address_space = kUnlimited;  // RLIMIT_AS, ulimit -v
  int64_t data = kUnlimited;           // RLIMIT_DATA, ulimit -d: memory of its own that it can write

  static ProcessLimits own();
};

// Returns what the limits leave beside what the process has mapped already, bytes, 0 or more; kUnlimited without a
// limit.
int64_t unused_address_space_bytes(const ProcessLimits& limits = ProcessLimits::own(),
                                   const std::filesystem::path& root = "/");

// Reads a line "Key:   123 kB" of a file of /proc and returns it in bytes; -1 when it is absent.
int64_t proc_kilobytes(const std::filesystem::path& path, const std::string& key);

}  // namespace winnow
