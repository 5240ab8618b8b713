// Cores, memory and disk that the operating system grants this process, and what it has used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace winnow {

// Returns the numbers of the cores that this process may run on.
std::vector<int> affinity_cores();
std::string host_name();
// Returns the memory that is free for use, bytes: the least of the host's and of what the process's control groups
// leave.
int64_t available_memory_bytes();
// Returns the most memory that this process has had resident, bytes.
int64_t peak_resident_bytes();
// Returns the free space of the file system that holds `path` (an existing directory), bytes; -1 when unknown.
int64_t free_disk_bytes(const std::string& path);
// Returns the name of the processor, "" when unknown.
std::string processor_name();

// Returns the command line of this process, with quotes where a shell needs them.
std::string command_line();

// Returns the threads of local rank `local_rank`, at least 1: the cores of its mask, shared among the ranks of the host
// whose masks have a core in common with it. masks[r]: the cores of local rank r.
int share_of_cores(const std::vector<std::vector<int>>& masks, int local_rank, double quota_cores);

}  // namespace winnow
