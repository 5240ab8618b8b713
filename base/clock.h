// The time, for predictions, progress lines and provenance: no result depends on it.
#pragma once

#include <chrono>
#include <string>

namespace winnow {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Returns the time now in UTC, "2026-01-31T12:00:00Z", or in another format of strftime(3).
std::string utc_now(const char* format = "%Y-%m-%dT%H:%M:%SZ");

}  // namespace winnow
