// Asks the system about another process of this host.
#pragma once

#include <cstdint>

namespace winnow::runtime {

// Returns true if the process runs: one that ended, and that its parent has not waited for yet, does not.
bool is_running(int64_t process);

// Returns the start of a process, in clock ticks since the host's: it tells a process from a later one with its number.
// 0 when it is gone.
int64_t start_ticks(int64_t process);

}  // namespace winnow::runtime
