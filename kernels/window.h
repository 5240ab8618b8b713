// Which keys a query row of a windowed layer sees: the only definition of the window, for host and device.
//
// Query t sees key j iff j <= t and (t - j < W or j < S); rows that do not obey the window see all j <= t. W counts the
// row itself (Transformers' convention: kv > q - W), positions are absolute. See ARCHITECTURE.md, "The window".
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/host_device.h"

namespace winnow::kernels {

// Largest row index a window can name; also "no window": a row never has that many keys before it.
inline constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 4;

// The window of one layer for one example. Full attention is a window of kNoLimit keys: data, never a branch.
struct Window {
  int64_t keys = kNoLimit;     // keys that a row sees, itself included, >= 1 (W)
  int64_t sinks = 0;           // first tokens of the sequence that a row sees besides, >= 0 (S)
  int64_t first_row = 0;       // rows before see everything (a - M with tail rows, else 0); may be negative
  int64_t end_row = kNoLimit;  // rows from here on see everything (a when the answer is decoded with full attention)

  bool operator==(const Window&) const = default;
};

// Returns the window in which every row sees all keys up to its own.
inline constexpr Window full_attention() { return Window{}; }

// Returns whether row t obeys the window at all.
WINNOW_HOST_DEVICE inline constexpr bool is_windowed(const Window& w, int64_t t) {
  return t >= w.first_row && t < w.end_row;
}

// Returns the first key of the band of row t, inclusive: the row sees keys [window_start, t] and the sinks before it.
WINNOW_HOST_DEVICE inline constexpr int64_t window_start(const Window& w, int64_t t) {
  return (!is_windowed(w, t) || t < w.keys) ? 0 : t - w.keys + 1;
}

// Returns whether row t sees key j.
WINNOW_HOST_DEVICE inline constexpr bool sees(const Window& w, int64_t t, int64_t j) {
  return j <= t && (j >= window_start(w, t) || j < w.sinks);
}

// Returns the first row whose keys differ from full attention's: rows before it are the same in every layer, windowed
// or not. kNoLimit or more: no row of any length can differ.
inline constexpr int64_t first_affected_row(const Window& w) {
  const int64_t beyond = w.keys >= kNoLimit - w.sinks ? kNoLimit : w.keys + w.sinks;
  const int64_t first = beyond > w.first_row ? beyond : w.first_row;
  return first < w.end_row ? first : kNoLimit;
}

// Returns the number of (row, key) pairs that rows [first, end) see.
inline constexpr int64_t attention_pairs(const Window& w, int64_t first, int64_t end) {
  // Rows [from, to) that see everything: row t has t + 1 keys.
  const auto all = [](int64_t from, int64_t to) { return to <= from ? 0 : (from + 1 + to) * (to - from) / 2; };
  const auto clamp = [&](int64_t row) { return row < first ? first : row > end ? end : row; };
  if (end <= first) return 0;
  // A row that obeys the window sees min(t + 1, W + S) keys.
  const int64_t most = w.keys >= kNoLimit - w.sinks ? kNoLimit : w.keys + w.sinks;
  const int64_t begin_windowed = clamp(w.first_row);
  const int64_t end_windowed = begin_windowed > clamp(w.end_row) ? begin_windowed : clamp(w.end_row);
  const int64_t full = most < begin_windowed ? begin_windowed : most > end_windowed ? end_windowed : most;
  return all(first, full) + (full < end_windowed ? (end_windowed - full) * most : 0) + all(end_windowed, end);
}

}  // namespace winnow::kernels
