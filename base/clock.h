// The time, for predictions, progress lines and provenance: no result depends on it.
#pragma once

#include <array>
#include <chrono>
#include <ctime>
#include <string>

namespace winnow {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Returns the time now in UTC, "2026-01-31T12:00:00Z", or in another format of strftime(3).
inline std::string utc_now(const char* format = "%Y-%m-%dT%H:%M:%SZ") {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 64> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format, &utc)};
}

}  // namespace winnow
