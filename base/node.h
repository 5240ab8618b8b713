// What the operating system grants this process: cores, memory, peaks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace winnow {

// Cores that this process may run on, by number.
std::vector<int> affinity_cores();
std::string host_name();
// Memory that is free for use, bytes: the least of the host's and of what the process's control groups leave.
int64_t available_memory_bytes();
// Most memory that this process has had resident, bytes.
int64_t peak_resident_bytes();
// Free space of the file system that holds `path` (an existing directory), bytes; -1 when unknown.
int64_t free_disk_bytes(const std::string& path);
// Name of the processor, "" when unknown.
std::string processor_name();

// The command line of this process, with quotes where a shell needs them.
std::string command_line();

// Threads of each rank: the cores of its mask, shared among the ranks of the host whose masks share a core with it.
// masks[r] are the cores of local rank r. At least 1.
int share_of_cores(const std::vector<std::vector<int>>& masks, int local_rank, double quota_cores);

}  // namespace winnow
