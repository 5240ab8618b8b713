// Rows in tiles: sequences are cut, padded and placed in multiples of Device::row_tile().
#pragma once

#include <cstdint>

namespace winnow::kernels {

// Return the largest multiple of `tile` that is not above n, and the smallest that is not below; n >= 0.
inline constexpr int64_t round_down(int64_t n, int64_t tile) { return n / tile * tile; }
inline constexpr int64_t round_up(int64_t n, int64_t tile) { return (n + tile - 1) / tile * tile; }

}  // namespace winnow::kernels
