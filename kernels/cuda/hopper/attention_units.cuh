// What blocks of Hopper's attention work on: the calls of a launch, cut into units, and the shared memory of a unit.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/hopper/attention.h"
#include "kernels/cuda/hopper/wgmma.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/window.h"

namespace winnow::cuda::hopper {

constexpr int kGroup = 128;     // threads of a warpgroup
constexpr int kGroupRows = 64;  // of queries
constexpr int kColumn = 64;     // elements of a swizzled column

// Calls of one launch: its parameters must stay below 32 KiB.
constexpr int kCallsPerLaunch = 32;

struct LaunchArguments;

struct CallArguments {
  CUtensorMap q;       // (head_dim, n_heads, n_rows)
  CUtensorMap prefix;  // (head_dim, 2 * n_kv_heads, rows), from row 0 on
  CUtensorMap own;     // the same, from own_first_row on
  Bf16* out;
  float* lse;
  int64_t lse_stride;        // between heads
  const float* sink_logits;  // (n_heads), or null
  kernels::Window window;
  int own_first_row;
  int first_row;
  int n_rows;
  int n_tokens;
  int first_head;  // of the queries, that are computed
  int n_heads;     // of them
  int first_unit;  // of the launch: a unit is a tile of rows of one head, with a part of the keys
  int n_parts;     // of the keys: 1 but where rows are few and all see all
  int part_tiles;  // tiles of keys of a part
  // (n_parts, n_rows, n_heads, head_dim + 2), where there are several: sums of values, then the maximum of the scores,
  // times log2(e), and the sum of the weights.
  float* partial;

  __device__ float* partial_of(int part, int row, int head, const LaunchArguments& launch) const;
};

struct LaunchArguments {
  CallArguments call[kCallsPerLaunch];
  int n_calls;
  int n_units;
  int n_heads;
  int n_kv_heads;
  int head_dim;
  float scale_log2;  // scale * log2(e)
  float cap_log2;    // cap of the scores * log2(e); 0: none
  Schedule* schedule;
};

__device__ inline float* CallArguments::partial_of(int part, int row, int head, const LaunchArguments& launch) const {
  return partial + ((static_cast<int64_t>(part) * n_rows + row) * launch.n_heads + head) * (launch.head_dim + 2);
}

// What fits a head: kKeys keys a tile, kConsumers warpgroups that multiply, kParts products for the values' columns.
template <int kDimension>
struct Shape;
template <>
struct Shape<64> {
  static constexpr int kKeys = 128, kConsumers = 3, kStages = 4, kParts = 1;
};
template <>
struct Shape<128> {
  static constexpr int kKeys = 128, kConsumers = 2, kStages = 2, kParts = 1;
};
template <>
struct Shape<96> : Shape<128> {};
template <>
struct Shape<256> {
  static constexpr int kKeys = 64, kConsumers = 2, kStages = 2, kParts = 2;
};

template <int kDim>
constexpr int kTileRows = Shape<kDim>::kConsumers* kGroupRows;
template <int kDim>
constexpr int kColumns = (kDim + kColumn - 1) / kColumn;

template <int kDim>
struct alignas(1024) SharedTiles {
  using S = Shape<kDim>;
  Bf16 queries[kColumns<kDim>][kTileRows<kDim> * kColumn];
  Bf16 keys[S::kStages][kColumns<kDim>][S::kKeys * kColumn];
  Bf16 values[S::kStages][kColumns<kDim>][S::kKeys * kColumn];
  int unit;  // what the block works on next
  Barrier unit_full, unit_empty;
  Barrier queries_full, queries_empty;
  Barrier keys_full[S::kStages], keys_empty[S::kStages];
  Barrier values_full[S::kStages], values_empty[S::kStages];
};

// A tile of rows of one head of one call, and a part of its keys.
struct Unit {
  const CallArguments* call;
  int head;
  int part;
  int row;    // first row, in the call
  int first;  // the same, absolute
  int last;   // last real row; before `first`: there is none, and no tile
  TileRange tiles;
  int n_tiles;
};

template <int kDim>
__device__ Unit unit_of(const LaunchArguments& launch, int index) {
  int c = 0;
  while (c + 1 < launch.n_calls && launch.call[c + 1].first_unit <= index) ++c;
  const CallArguments& call = launch.call[c];
  const int n_row_tiles = (call.n_rows + kTileRows<kDim> - 1) / kTileRows<kDim>;
  const int in_call = index - call.first_unit;
  Unit unit{};
  unit.call = &call;
  unit.head = call.first_head + in_call % call.n_heads;
  unit.part = in_call / call.n_heads % call.n_parts;
  unit.row = (n_row_tiles - 1 - in_call / (call.n_heads * call.n_parts)) * kTileRows<kDim>;  // the longest first
  unit.first = call.first_row + unit.row;
  unit.last = min(unit.first + kTileRows<kDim>, call.n_tokens) - 1;
  if (unit.last < unit.first) return unit;
  unit.tiles = tiles_of<Shape<kDim>::kKeys>(call.window, unit.first, unit.last);
  if (call.n_parts > 1) {
    unit.tiles.band_begin = unit.part * call.part_tiles;
    unit.tiles.end = min(unit.tiles.end, unit.tiles.band_begin + call.part_tiles);
  }
  unit.n_tiles = max(0, unit.tiles.count());
  return unit;
}

// Where a ring of stages is read or written next.
template <int kStages>
struct Place {
  int stage = 0;
  int parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace winnow::cuda::hopper
