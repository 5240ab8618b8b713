#include <algorithm>
#include <bit>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kRoundKvThreads = 256;

// Copies of one launch: its parameters must stay below 4 KiB.
constexpr int kRoundingsPerLaunch = 128;

struct RoundedRows {
  const Bf16x8* from;
  Bf16x8* to;
  int64_t n_heads;  // keys' and values' of all rows
};

struct RoundingArguments {
  RoundedRows rows[kRoundingsPerLaunch];
};

// Returns the range of a head whose elements kLanes neighbouring threads hold.
template <int kLanes>
__device__ kernels::ElementRange range_of_head(kernels::ElementRange range) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    range.add(kernels::ElementRange{__shfl_xor_sync(0xFFFFFFFFU, range.least, offset),
                                    __shfl_xor_sync(0xFFFFFFFFU, range.largest, offset)});
  }
  return range;
}

// One head of one row's keys, or values, by kLanes neighbouring threads with a vector each: read once, written once. A
// warp's threads stay together, also beyond the last head: they shuffle. An idle thread adds nothing to the range.
template <int kLanes>
__global__ void __launch_bounds__(kRoundKvThreads)
    round_kv_kernel(const __grid_constant__ RoundingArguments launch, kernels::KvRounding rounding, int head_vectors,
                    int n_kv_heads) {
  const RoundedRows& rows = launch.rows[blockIdx.y];
  const int lane = threadIdx.x % kLanes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRoundKvThreads / kLanes;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kRoundKvThreads + threadIdx.x) / kLanes;
  // The first thread of a warp has its least head: as long as that one exists, all go on.
  const int64_t of_warp = first - (threadIdx.x % kWarp) / kLanes;
  for (int64_t done = 0; of_warp + done < rows.n_heads; done += step) {
    const int64_t head = first + done;
    const bool is_active = head < rows.n_heads && lane < head_vectors;
    float x[8] = {};
    kernels::ElementRange range;
    if (is_active) {
      rows.from[head * head_vectors + lane].to_float(x);
#pragma unroll
      for (const float e : x) range.add(e);
    }
    range = range_of_head<kLanes>(range);
    if (!is_active) continue;
    const bool is_key = head % (2 * n_kv_heads) < n_kv_heads;
    const kernels::HeadRounding round(rounding.type, is_key ? rounding.key_scale : rounding.value_scale, range);
#pragma unroll
    for (float& e : x) e = round(e);
    rows.to[head * head_vectors + lane] = Bf16x8::from_float(x);
  }
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

}  // namespace

// Rows lie one after another, a row's heads of keys and then those of its values: a copy is one range of heads.
void CudaBackend::do_round_kv(std::span<const kernels::KvCopy> copies, const kernels::KvRounding& rounding,
                              const kernels::HeadShape& heads) {
  const int64_t head_vectors = heads.head_dim / 8;
  const int64_t row_vectors = 2 * heads.n_kv_heads * head_vectors;
  RoundingArguments arguments{};
  for (std::size_t begin = 0; begin < copies.size(); begin += kRoundingsPerLaunch) {
    const std::size_t n = std::min<std::size_t>(kRoundingsPerLaunch, copies.size() - begin);
    int64_t most = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const kernels::KvCopy& copy = copies[begin + i];
      arguments.rows[i] = {kv_elements<Bf16x8>(copy.from) + copy.from_row * row_vectors,
                           kv_elements<Bf16x8>(copy.to) + copy.to_row * row_vectors,
                           copy.n_rows * 2 * heads.n_kv_heads};
      most = std::max(most, arguments.rows[i].n_heads);
    }
    if (most == 0) continue;
    with_head_lanes(head_vectors, [&](auto lanes) {
      const int64_t blocks = std::min<int64_t>((most * lanes() + kRoundKvThreads - 1) / kRoundKvThreads, 4096);
      round_kv_kernel<lanes()>
          <<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(n)), kRoundKvThreads, 0, stream_>>>(
              arguments, rounding, static_cast<int>(head_vectors), static_cast<int>(heads.n_kv_heads));
    });
    WINNOW_CUDA_CHECK_LAUNCH();
  }
}

}  // namespace winnow::cuda
