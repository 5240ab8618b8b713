// Heads of keys and values, each by neighbouring threads of a warp that have a vector of 8 elements: 1 to 32 of them,
// the next power of two.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/vector.cuh"
#include "kernels/kv_rounding.h"

namespace winnow::cuda {

// Returns the range of a head whose elements kLanes neighbouring threads hold, to all of them that of the first: two
// zeros of different signs are equally small, and the first in the order of elements counts, as on a CPU.
template <int kLanes>
__device__ kernels::ElementRange range_of_head(kernels::ElementRange range) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    range.add(kernels::ElementRange{__shfl_xor_sync(0xFFFFFFFFU, range.least, offset),
                                    __shfl_xor_sync(0xFFFFFFFFU, range.largest, offset)});
  }
  return {__shfl_sync(0xFFFFFFFFU, range.least, 0, kLanes), __shfl_sync(0xFFFFFFFFU, range.largest, 0, kLanes)};
}

// Which head a thread of a block of kThreads works on, and which of its vectors. blockIdx.x goes over the heads.
template <int kLanes, int kThreads>
struct HeadLanes {
  int lane = static_cast<int>(threadIdx.x) % kLanes;
  int64_t step = static_cast<int64_t>(gridDim.x) * kThreads / kLanes;
  int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  // The first thread of a warp has its least head: as long as that one exists, all go on where they shuffle.
  int64_t first_of_warp = first - (static_cast<int>(threadIdx.x) % kWarp) / kLanes;
};

// Returns the blocks that n heads are worth.
template <int kLanes, int kThreads>
unsigned head_blocks(int64_t n_heads) {
  const int64_t blocks = (n_heads * kLanes + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < 4096 ? blocks : 4096);
}

// Calls `launch` with the threads of a head as a constant.
template <typename Launch>
void with_head_lanes(int64_t head_vectors, Launch launch) {
  switch (std::bit_ceil(static_cast<uint64_t>(head_vectors))) {
    case 1:
      return launch(std::integral_constant<int, 1>());
    case 2:
      return launch(std::integral_constant<int, 2>());
    case 4:
      return launch(std::integral_constant<int, 4>());
    case 8:
      return launch(std::integral_constant<int, 8>());
    case 16:
      return launch(std::integral_constant<int, 16>());
    default:
      return launch(std::integral_constant<int, 32>());
  }
}

}  // namespace winnow::cuda
