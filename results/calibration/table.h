// A result as text for the terminal.
#pragma once

#include <string>

#include "results/calibration/results.h"

namespace winnow::calibration {

struct TableStyle {
  bool utf8_bars = false;  // bars of block characters; else '#', and then the whole text is ASCII
};

// Bound on the mean exact match under the base below which exact match says little about a layer, and token accuracy
// leads.
inline constexpr double kNearZeroExactMatch = 0.05;

// Returns the ranking (one line a layer, by rank), the answer in one line, de-confounding against every control with
// the paper's figures beside it, and reliability; `n/a (why)` where a figure is not defined. Ends with a newline.
std::string to_table(const Results& results, const TableStyle& style);

// Returns the layers that keep full attention for the result's top_k, as indices, rising.
std::vector<int64_t> layers_to_keep(const Statistics& statistics);

}  // namespace winnow::calibration
