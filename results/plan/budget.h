// A budget of memory for keys and values, as a command line names it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace winnow::plan {

// Bounds on what is to be served: no sequence is that long, and no engine runs that many.
inline constexpr int64_t kMostTokens = int64_t{1} << 31;
inline constexpr int64_t kMostSequences = int64_t{1} << 20;

struct Budget {
  std::string text;             // as given: "24GiB@131072", "25%"
  std::optional<double> share;  // of what full attention takes, above 0 and at most 1
  int64_t bytes = 0;            // where it is no share
  std::optional<int64_t> max_seq_len;

  // Returns its bytes where full attention takes so many.
  double of(double full_bytes) const { return share ? *share * full_bytes : static_cast<double>(bytes); }
};

// Parses a size or a share of full attention's memory, and the length of a sequence behind @ where there is one. Throws
// Error(kUsage), naming --budget.
Budget parse_budget(const std::string& text);
// Throws Error(kUsage), naming the flag, for a value that is not from 1 to `most`; returns it otherwise.
int64_t check_range(const std::string& flag, int64_t value, int64_t most);

}  // namespace winnow::plan
