// Seconds for predictions, progress lines and provenance: no result depends on them.
#pragma once

#include <chrono>

namespace winnow {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace winnow
