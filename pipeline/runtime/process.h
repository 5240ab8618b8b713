// What the system tells of another process of this host.
#pragma once

#include <cstdint>

namespace winnow::runtime {

// Whether the process runs: one that ended, and that its parent has not looked at yet, does not.
bool is_running(int64_t process);

// When the process was started, in clock ticks since the host was: it tells a process from a later one with its number.
// 0 when it is gone.
int64_t start_ticks(int64_t process);

}  // namespace winnow::runtime
