// Limits that a system sets to processes, and what they leave: control groups of Linux (containers, Slurm, systemd) of
// both versions, and resource limits of the process (ulimit). Pure functions of files: `root` is "/" but for tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace winnow {

// Where nothing limits.
inline constexpr int64_t kUnlimited = INT64_MAX;

// Memory that the groups leave, bytes: the least of limit - use over all of them. Pages of files that the kernel can
// take back count as free, as they do in MemAvailable.
int64_t group_memory_bytes(const std::filesystem::path& root = "/");

// The least processor quota of the groups, in cores; 0: none.
double group_cores(const std::filesystem::path& root = "/");

// Resource limits of a process, bytes; kUnlimited where there is none.
struct ProcessLimits {
  int64_t address_space = kUnlimited;  // RLIMIT_AS, ulimit -v
  int64_t data = kUnlimited;           // RLIMIT_DATA, ulimit -d: memory of its own that it can write

  static ProcessLimits own();
};

// What they leave beside what the process has mapped already, bytes, 0 or more; kUnlimited where nothing limits.
int64_t unused_address_space_bytes(const ProcessLimits& limits = ProcessLimits::own(),
                                   const std::filesystem::path& root = "/");

// "Key:   123 kB" of a file of /proc, in bytes; -1 when absent.
int64_t proc_kilobytes(const std::filesystem::path& path, const std::string& key);

}  // namespace winnow
