// Keys and values rounded to the types of caches: in place of themselves, and packed as codes.

#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/head_lanes.cuh"

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

// One head of one row's keys, or values, by kLanes neighbouring threads with a vector each: read once, written once. A
// warp's threads stay together, also beyond the last head: they shuffle. An idle thread adds nothing to the range.
template <int kLanes>
__global__ void __launch_bounds__(kRoundKvThreads)
    round_kv_kernel(const __grid_constant__ RoundingArguments launch, kernels::KvRounding rounding, int head_vectors,
                    int n_kv_heads) {
  const RoundedRows& rows = launch.rows[blockIdx.y];
  const HeadLanes<kLanes, kRoundKvThreads> at;
  for (int64_t done = 0; at.first_of_warp + done < rows.n_heads; done += at.step) {
    const int64_t head = at.first + done;
    const bool is_active = head < rows.n_heads && at.lane < head_vectors;
    float x[8] = {};
    kernels::ElementRange range;
    if (is_active) {
      rows.from[head * head_vectors + at.lane].to_float(x);
#pragma unroll
      for (const float e : x) range.add(e);
    }
    range = range_of_head<kLanes>(range);
    if (!is_active) continue;
    const bool is_key = head % (2 * n_kv_heads) < n_kv_heads;
    const kernels::HeadRounding round(rounding.type, rounding.scale(is_key), range);
#pragma unroll
    for (float& e : x) e = round(e);
    rows.to[head * head_vectors + at.lane] = Bf16x8::from_float(x);
  }
}

// Ranges of rows of one launch: its parameters must stay below 4 KiB.
constexpr int kPackingsPerLaunch = 96;

struct PackedHeads {
  Bf16x8* kv;
  std::byte* codes;
  uint32_t* scales;
  int64_t n_heads;  // keys' and values' of all rows
};

struct PackingArguments {
  PackedHeads heads[kPackingsPerLaunch];
  kernels::KvRounding rounding;
  int head_vectors;
  int n_kv_heads;
};

// The codes of 8 elements: a word in halves of bytes, or two.
__device__ void store_codes(const kernels::HeadRounding& rounding, const float (&x)[8], bool in_halves, int64_t vector,
                            std::byte* codes) {
  uint32_t word[2] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t code = rounding.encode(x[i]);
    if (in_halves) {
      word[0] |= code << (4 * i);
    } else {
      word[i / 4] |= code << (8 * (i % 4));
    }
  }
  if (in_halves) {
    reinterpret_cast<uint32_t*>(codes)[vector] = word[0];
  } else {
    reinterpret_cast<uint2*>(codes)[vector] = make_uint2(word[0], word[1]);
  }
}

__device__ void load_codes(const kernels::HeadRounding& rounding, const std::byte* codes, bool in_halves,
                           int64_t vector, float (&x)[8]) {
  uint2 word = {};
  if (in_halves) {
    word.x = reinterpret_cast<const uint32_t*>(codes)[vector];
  } else {
    word = reinterpret_cast<const uint2*>(codes)[vector];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t code = in_halves ? word.x >> (4 * i) & 0xFU : (i < 4 ? word.x : word.y) >> (8 * (i % 4)) & 0xFFU;
    x[i] = rounding.decode(static_cast<uint8_t>(code));
  }
}

// As round_kv_kernel() goes over heads.
template <int kLanes>
__global__ void __launch_bounds__(kRoundKvThreads) pack_kv_kernel(const __grid_constant__ PackingArguments launch) {
  const PackedHeads& heads = launch.heads[blockIdx.y];
  const KvType type = launch.rounding.type;
  const HeadLanes<kLanes, kRoundKvThreads> at;
  for (int64_t done = 0; at.first_of_warp + done < heads.n_heads; done += at.step) {
    const int64_t head = at.first + done;
    const bool is_active = head < heads.n_heads && at.lane < launch.head_vectors;
    const int64_t vector = head * launch.head_vectors + at.lane;
    float x[8] = {};
    kernels::ElementRange range;
    if (is_active) {
      heads.kv[vector].to_float(x);
#pragma unroll
      for (const float e : x) range.add(e);
    }
    range = range_of_head<kLanes>(range);
    if (!is_active) continue;
    const bool is_key = head % (2 * launch.n_kv_heads) < launch.n_kv_heads;
    const kernels::HeadRounding rounding(type, launch.rounding.scale(is_key), range);
    store_codes(rounding, x, type == KvType::kInt4, vector, heads.codes);
    if (at.lane == 0 && type != KvType::kFp8) heads.scales[head] = kernels::scale_word(type, rounding.kept());
  }
}

template <int kLanes>
__global__ void __launch_bounds__(kRoundKvThreads) unpack_kv_kernel(const __grid_constant__ PackingArguments launch) {
  const PackedHeads& heads = launch.heads[blockIdx.y];
  const KvType type = launch.rounding.type;
  const HeadLanes<kLanes, kRoundKvThreads> at;
  if (at.lane >= launch.head_vectors) return;
  for (int64_t head = at.first; head < heads.n_heads; head += at.step) {
    const bool is_key = head % (2 * launch.n_kv_heads) < launch.n_kv_heads;
    const kernels::HeadScale kept = type == KvType::kFp8 ? kernels::HeadScale{launch.rounding.scale(is_key)}
                                                         : kernels::scale_of(type, heads.scales[head]);
    const int64_t vector = head * launch.head_vectors + at.lane;
    float x[8];
    load_codes({type, kept}, heads.codes, type == KvType::kInt4, vector, x);
    heads.kv[vector] = Bf16x8::from_float(x);
  }
}

// Calls launch(arguments, heads of the longest range, ranges) for as many ranges as one launch takes.
template <typename Launch>
void for_each_launch(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                     const kernels::HeadShape& heads, Launch launch) {
  const int64_t row_heads = 2 * heads.n_kv_heads;
  PackingArguments arguments{};
  arguments.rounding = rounding;
  arguments.head_vectors = static_cast<int>(heads.head_dim / 8);
  arguments.n_kv_heads = static_cast<int>(heads.n_kv_heads);
  for (std::size_t begin = 0; begin < rows.size(); begin += kPackingsPerLaunch) {
    const std::size_t n = std::min<std::size_t>(kPackingsPerLaunch, rows.size() - begin);
    int64_t most = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const kernels::KvPacking& some = rows[begin + i];
      const int64_t first_head = some.packed_row * row_heads;
      arguments.heads[i] = {kv_elements<Bf16x8>(some.kv) + some.kv_row * row_heads * arguments.head_vectors,
                            some.packed.codes(first_head), some.packed.scale(first_head), some.n_rows * row_heads};
      most = std::max(most, arguments.heads[i].n_heads);
    }
    if (most > 0) launch(arguments, most, static_cast<unsigned>(n));
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
      const dim3 grid(head_blocks<lanes(), kRoundKvThreads>(most), static_cast<unsigned>(n));
      round_kv_kernel<lanes()><<<grid, kRoundKvThreads, 0, stream_>>>(
          arguments, rounding, static_cast<int>(head_vectors), static_cast<int>(heads.n_kv_heads));
    });
    WINNOW_CUDA_CHECK_LAUNCH();
  }
}

void CudaBackend::do_pack_kv(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                             const kernels::HeadShape& heads) {
  for_each_launch(rows, rounding, heads, [&](const PackingArguments& arguments, int64_t most, unsigned n) {
    with_head_lanes(arguments.head_vectors, [&](auto lanes) {
      const dim3 grid(head_blocks<lanes(), kRoundKvThreads>(most), n);
      pack_kv_kernel<lanes()><<<grid, kRoundKvThreads, 0, stream_>>>(arguments);
    });
    WINNOW_CUDA_CHECK_LAUNCH();
  });
}

void CudaBackend::do_unpack_kv(std::span<const kernels::KvPacking> rows, const kernels::KvRounding& rounding,
                               const kernels::HeadShape& heads) {
  for_each_launch(rows, rounding, heads, [&](const PackingArguments& arguments, int64_t most, unsigned n) {
    with_head_lanes(arguments.head_vectors, [&](auto lanes) {
      const dim3 grid(head_blocks<lanes(), kRoundKvThreads>(most), n);
      unpack_kv_kernel<lanes()><<<grid, kRoundKvThreads, 0, stream_>>>(arguments);
    });
    WINNOW_CUDA_CHECK_LAUNCH();
  });
}

}  // namespace winnow::cuda
