// What the kernels of attention share: exponentials to the base of two, rows that four threads share, tiles of keys.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/window.h"

namespace winnow::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Absolute error about 2e-7.
__device__ inline float tanh_fast(float x) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(exp2_fast(2.0F * kLog2E * x) + 1.0F));
  return 1.0F - 2.0F * inverse;
}

// Maximum and sum over the four threads that share a row of a product.
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFU, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFFU, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFFU, x, 2);
}

// Tiles of keys that the rows [first, last] of a block need: those of the sinks, [0, sink_end), then those of the band,
// [band_begin, end).
struct TileRange {
  int sink_end = 0;
  int band_begin = 0;
  int end = 0;
  __device__ int count() const { return sink_end + end - band_begin; }
  __device__ int tile(int i) const { return i < sink_end ? i : band_begin + i - sink_end; }
};

template <int kKeyTile>
__device__ TileRange tiles_of(const kernels::Window& w, int64_t first, int64_t last) {
  // Where rows that obey and rows that do not share a block, the ones that do not see everything.
  const bool all_obey = kernels::is_windowed(w, first) && kernels::is_windowed(w, last);
  const bool none_obeys = last < w.first_row || first >= w.end_row;
  const int64_t band = all_obey ? kernels::window_start(w, first) : 0;
  const int64_t sinks = none_obeys ? 0 : min(w.sinks, last + 1);
  const int band_begin = static_cast<int>(band / kKeyTile);
  const int sink_end = min(static_cast<int>((sinks + kKeyTile - 1) / kKeyTile), band_begin);
  return {sink_end, band_begin, static_cast<int>(last / kKeyTile) + 1};
}

// Returns a key from which on every one of the rows [first, last] sees all keys of its past.
__device__ inline int64_t latest_band_start(const kernels::Window& w, int64_t first, int64_t last) {
  const bool none_obeys = last < w.first_row || first >= w.end_row;
  return none_obeys ? 0 : max(int64_t{0}, last - w.keys + 1);
}

}  // namespace winnow::cuda
