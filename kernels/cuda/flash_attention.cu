// One block is 128 query rows of one head, 32 for each of its 4 warps: two fragments of rows share every fragment of
// keys and values, or reading these from shared memory would take longer than the products. It walks over tiles of 64
// keys, those of the sinks and then those of the band; a tile that no row of the block sees is never loaded. Keys and
// values are brought in with cp.async one tile ahead.
//
// Row contract: a tile that is hidden from a row but loaded for its neighbours adds exactly 0 to it: exp2(-inf) = 0,
// and its running maximum, and so the rescaling by 1, do not move.

#include <algorithm>
#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention.cuh"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kQueryTile = 128;
constexpr int kKeyTile = 64;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kFragmentRows = 16;
constexpr int kFragments = kQueryTile / kWarps / kFragmentRows;  // of rows, a warp
constexpr int kStages = 2;

// Calls of one launch: its parameters must stay below 4 KiB.
constexpr int kCallsPerLaunch = 24;

struct CallArguments {
  const Bf16* q;
  Bf16* out;
  float* lse;
  int64_t lse_stride;  // between heads
  const Bf16* prefix;  // keys and values of row 0
  const Bf16* own;     // keys and values of row own_first_row
  int64_t own_first_row;
  int64_t first_row;
  int64_t n_rows;
  int64_t n_tokens;
  kernels::Window window;
  const float* sink_logits;  // (n_heads), or null
  int first_head;            // of the queries, that are computed
  int n_heads;               // of them
};

struct LaunchArguments {
  CallArguments call[kCallsPerLaunch];
  int n_heads;
  int n_kv_heads;
  int head_dim;
  float scale_log2;  // scale * log2(e)
  float cap_log2;    // cap of the scores * log2(e); 0: none
};

template <int kDim>
struct alignas(16) SharedTiles {
  Bf16 queries[kQueryTile * kDim];
  Bf16 keys[kStages][kKeyTile * kDim];
  Bf16 values[kStages][kKeyTile * kDim];
};

template <int kDim>
class Block {
 public:
  __device__ Block(const LaunchArguments& launch, const CallArguments& call, SharedTiles<kDim>& shared)
      : launch_(launch), call_(call), shared_(shared) {}

  __device__ void run(int tile, int head) {
    const int64_t first = call_.first_row + static_cast<int64_t>(tile) * kQueryTile;
    const int64_t last = min(first + kQueryTile, call_.n_tokens) - 1;
    row_in_block_ = static_cast<int>(threadIdx.x / kWarp) * kFragments * kFragmentRows;
    row_in_call_ = static_cast<int64_t>(tile) * kQueryTile + row_in_block_;
    head_ = head;
    if (last < first) {
      clear();
      write();
      return;
    }
    fetch_queries(tile);
    clear();
    const TileRange range = tiles_of<kKeyTile>(call_.window, first, last);
    const int n = range.count();
    fetch(range.tile(0), 0);
    for (int i = 0; i < n; ++i) {
      wait_copies();
      __syncthreads();  // tile i is there, and nobody reads tile i - 1 any more
      if (i + 1 < n) fetch(range.tile(i + 1), (i + 1) % kStages);
      process(range.tile(i), i % kStages, first, last);
    }
    write();
  }

 private:
  static constexpr int kDepthSteps = kDim / 16;
  static constexpr int kColumnTiles = kKeyTile / 8;
  static constexpr int kValueTiles = kDim / 8;

  __device__ int lane() const { return threadIdx.x % kWarp; }
  __device__ int64_t q_stride() const { return static_cast<int64_t>(launch_.n_heads) * launch_.head_dim; }

  __device__ void fetch_queries(int tile) {
    const Bf16* from = call_.q + static_cast<int64_t>(tile) * kQueryTile * q_stride() + head_ * launch_.head_dim;
    constexpr int kPieces = kDim / 8;
    for (int i = threadIdx.x; i < kQueryTile * kPieces; i += kThreads) {
      const int r = i / kPieces;
      const int piece = i % kPieces;
      const bool valid = piece * 8 < launch_.head_dim;
      copy_async(shared_.queries + swizzled<kDim>(r, piece), from + r * q_stride() + (valid ? piece * 8 : 0), valid);
    }
  }

  __device__ void clear() {
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
#pragma unroll
      for (auto& tile : out_[m]) {
#pragma unroll
        for (float& x : tile) x = 0.0F;
      }
      max_[m][0] = max_[m][1] = -INFINITY;
      sum_[m][0] = sum_[m][1] = 0.0F;
    }
  }

  // Tiles do not straddle the two sources: own.first_row is a multiple of the row tile.
  __device__ void fetch(int tile, int stage) {
    const int64_t row = static_cast<int64_t>(tile) * kKeyTile;
    const bool own = row >= call_.own_first_row;
    const int64_t kv_dim = static_cast<int64_t>(launch_.n_kv_heads) * launch_.head_dim;
    const int64_t stride = 2 * kv_dim;
    const int kv_head = head_ / (launch_.n_heads / launch_.n_kv_heads);
    const int64_t offset = (own ? row - call_.own_first_row : row) * stride + kv_head * launch_.head_dim;
    const Bf16* keys = (own ? call_.own : call_.prefix) + offset;
    const Bf16* values = keys + kv_dim;
    constexpr int kPieces = kDim / 8;
    for (int i = threadIdx.x; i < kKeyTile * kPieces; i += kThreads) {
      const int r = i / kPieces;
      const int piece = i % kPieces;
      const bool valid = piece * 8 < launch_.head_dim;
      const int64_t at = valid ? r * stride + piece * 8 : 0;
      copy_async(shared_.keys[stage] + swizzled<kDim>(r, piece), keys + at, valid);
      copy_async(shared_.values[stage] + swizzled<kDim>(r, piece), values + at, valid);
    }
    commit_copies();
  }

  __device__ void process(int tile, int stage, int64_t first, int64_t last) {
    float scores[kFragments][kColumnTiles][4] = {};
    const Bf16* keys = shared_.keys[stage];
#pragma unroll
    for (int k = 0; k < kDepthSteps; ++k) {
      uint32_t q[kFragments][4];
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
        const int row = row_in_block_ + m * kFragmentRows + (lane() & 15);
        load_matrices(q[m], shared_.queries + swizzled<kDim>(row, k * 2 + (lane() >> 4)));
      }
#pragma unroll
      for (int c = 0; c < kColumnTiles; c += 2) {
        // Keys c*8 .. c*8+15 by depth k*16 .. k*16+15, as two column tiles.
        uint32_t b[4];
        const int key = c * 8 + (lane() & 7) + ((lane() >> 4) << 3);
        load_matrices(b, keys + swizzled<kDim>(key, k * 2 + ((lane() >> 3) & 1)));
#pragma unroll
        for (int m = 0; m < kFragments; ++m) {
          multiply(scores[m][c], q[m], b[0], b[1]);
          multiply(scores[m][c + 1], q[m], b[2], b[3]);
        }
      }
    }
    if (launch_.cap_log2 > 0.0F) cap(scores);
    const int64_t first_key = static_cast<int64_t>(tile) * kKeyTile;
    // Seen whole by every row: the last key is not in the first row's future, and the first key is in every band.
    const kernels::Window& w = call_.window;
    const bool whole = first_key + kKeyTile - 1 <= first &&
                       (first_key >= latest_band_start(w, first, last) || first_key + kKeyTile <= w.sinks);
    if (!whole) hide(scores, first_key);
#pragma unroll
    for (int m = 0; m < kFragments; ++m) soften(scores[m], m);
    accumulate(scores, shared_.values[stage]);
  }

  // Scores s to cap * tanh(s / cap), in the units that they are in before scale_log2.
  __device__ void cap(float (&scores)[kFragments][kColumnTiles][4]) const {
    const float inward = launch_.scale_log2 / launch_.cap_log2;
#pragma unroll
    for (auto& fragment : scores) {
#pragma unroll
      for (auto& tile : fragment) {
#pragma unroll
        for (float& score : tile) score = tanhf(score * inward) / inward;
      }
    }
  }

  __device__ void hide(float (&scores)[kFragments][kColumnTiles][4], int64_t first_key) const {
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int64_t t = call_.first_row + row_of(m, e >> 1);
          const int64_t j = first_key + c * 8 + (lane() % 4) * 2 + (e & 1);
          if (!kernels::sees(call_.window, t, j)) scores[m][c][e] = -INFINITY;
        }
      }
    }
  }

  // Scores to exp2(score - maximum), in place; what there is so far is rescaled to the new maximum.
  __device__ void soften(float (&scores)[kColumnTiles][4], int m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float tile_max = -INFINITY;
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        tile_max = fmaxf(tile_max, fmaxf(scores[c][2 * half], scores[c][2 * half + 1]));
      }
      const float highest = fmaxf(max_[m][half], quad_max(tile_max) * launch_.scale_log2);
      const float reference = highest == -INFINITY ? 0.0F : highest;
      const float rescale = exp2_fast(max_[m][half] - reference);
      max_[m][half] = highest;
      float sum = 0.0F;
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[c][e] = exp2_fast(scores[c][e] * launch_.scale_log2 - reference);
          sum += scores[c][e];
        }
      }
      sum_[m][half] = sum_[m][half] * rescale + sum;
#pragma unroll
      for (auto& tile : out_[m]) {
        tile[2 * half] *= rescale;
        tile[2 * half + 1] *= rescale;
      }
    }
  }

  __device__ void accumulate(const float (&p)[kFragments][kColumnTiles][4], const Bf16* values) {
#pragma unroll
    for (int k = 0; k < kKeyTile / 16; ++k) {
      uint32_t a[kFragments][4];
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
        a[m][0] = pack(p[m][2 * k][0], p[m][2 * k][1]);
        a[m][1] = pack(p[m][2 * k][2], p[m][2 * k][3]);
        a[m][2] = pack(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
        a[m][3] = pack(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
      }
#pragma unroll
      for (int v = 0; v < kValueTiles; v += 2) {
        uint32_t b[4];
        const int key = k * 16 + (lane() & 7) + (((lane() >> 3) & 1) << 3);
        load_matrices_transposed(b, values + swizzled<kDim>(key, v + (lane() >> 4)));
#pragma unroll
        for (int m = 0; m < kFragments; ++m) {
          multiply(out_[m][v], a[m], b[0], b[1]);
          multiply(out_[m][v + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // Row in the call of this thread's part of a fragment: the upper or the lower half.
  __device__ int64_t row_of(int m, int half) const { return row_in_call_ + m * kFragmentRows + lane() / 4 + half * 8; }

  __device__ void write() {
    const float sink_log2 = call_.sink_logits == nullptr ? -INFINITY : call_.sink_logits[head_] * kLog2E;
#pragma unroll
    for (int m = 0; m < kFragments; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = row_of(m, half);
        const bool real = call_.first_row + row < call_.n_tokens;
        const float total = quad_sum(sum_[m][half]);
        float denominator = total;
        if (sink_log2 != -INFINITY) denominator += exp2f(sink_log2 - max_[m][half]);
        const float inverse = real ? 1.0F / denominator : 0.0F;
        Bf16* to = call_.out + row * q_stride() + head_ * launch_.head_dim + (lane() % 4) * 2;
#pragma unroll
        for (int v = 0; v < kValueTiles; ++v) {
          if (v * 8 >= launch_.head_dim) continue;
          *reinterpret_cast<uint32_t*>(to + v * 8) =
              pack(out_[m][v][2 * half] * inverse, out_[m][v][2 * half + 1] * inverse);
        }
        if (call_.lse != nullptr && lane() % 4 == 0) {
          call_.lse[head_ * call_.lse_stride + row] = real ? (max_[m][half] + log2f(total)) * kLn2 : 0.0F;
        }
      }
    }
  }

  const LaunchArguments& launch_;
  const CallArguments& call_;
  SharedTiles<kDim>& shared_;
  int row_in_block_ = 0;     // first row of this warp
  int64_t row_in_call_ = 0;  // the same row
  int head_ = 0;
  float out_[kFragments][kValueTiles][4];
  float max_[kFragments][2];  // of the scores, times log2(e), of the rows lane / 4 and lane / 4 + 8
  float sum_[kFragments][2];  // this thread's part
};

// Two blocks a multiprocessor: one computes while the other waits.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) attention_kernel(const __grid_constant__ LaunchArguments launch) {
  extern __shared__ char memory[];
  const CallArguments& call = launch.call[blockIdx.z];
  const int n_tiles = static_cast<int>(call.n_rows / kQueryTile);
  if (static_cast<int>(blockIdx.x) >= n_tiles || static_cast<int>(blockIdx.y) >= call.n_heads) return;
  // The longest rows first.
  Block<kDim>(launch, call, *reinterpret_cast<SharedTiles<kDim>*>(memory))
      .run(n_tiles - 1 - static_cast<int>(blockIdx.x), call.first_head + static_cast<int>(blockIdx.y));
}

template <int kDim>
void launch_kernel(const LaunchArguments& launch, const dim3& grid, cudaStream_t stream) {
  constexpr std::size_t kSharedBytes = sizeof(SharedTiles<kDim>);
  WINNOW_CUDA_CHECK(cudaFuncSetAttribute(attention_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(kSharedBytes)));
  attention_kernel<kDim><<<grid, kThreads, kSharedBytes, stream>>>(launch);
  WINNOW_CUDA_CHECK_LAUNCH();
}

CallArguments arguments(const kernels::AttentionCall& call, const LseRows& lse, const kernels::HeadShape& heads) {
  const kernels::HeadRange range = call.query_heads(heads);
  return {.q = call.q.as<Bf16>(),
          .out = call.out.as<Bf16>(),
          .lse = lse.data,
          .lse_stride = lse.head_stride,
          .prefix = kv_elements<Bf16>(call.prefix.kv),
          .own = kv_elements<Bf16>(call.own.kv),
          .own_first_row = call.own.first_row,
          .first_row = call.first_row,
          .n_rows = call.n_rows(),
          .n_tokens = call.n_tokens,
          .window = call.window,
          .sink_logits = call.sink_logits.as<float>(),
          .first_head = static_cast<int>(range.begin),
          .n_heads = static_cast<int>(range.count())};
}

}  // namespace

void own_attention(std::span<const kernels::AttentionCall> calls, std::span<const LseRows> lse,
                   const kernels::HeadShape& heads, cudaStream_t stream) {
  LaunchArguments launch{};
  launch.n_heads = static_cast<int>(heads.n_heads);
  launch.n_kv_heads = static_cast<int>(heads.n_kv_heads);
  launch.head_dim = static_cast<int>(heads.head_dim);
  launch.scale_log2 = heads.scale * kLog2E;
  launch.cap_log2 = heads.softcap * kLog2E;
  for (std::size_t begin = 0; begin < calls.size(); begin += kCallsPerLaunch) {
    const std::size_t n = std::min<std::size_t>(kCallsPerLaunch, calls.size() - begin);
    int64_t most_rows = 0;
    int most_heads = 0;
    for (std::size_t i = 0; i < n; ++i) {
      launch.call[i] = arguments(calls[begin + i], lse.empty() ? LseRows{} : lse[begin + i], heads);
      most_heads = std::max(most_heads, launch.call[i].n_heads);
      most_rows = std::max(most_rows, calls[begin + i].n_rows());
    }
    const dim3 grid(static_cast<unsigned>(most_rows / kQueryTile), static_cast<unsigned>(most_heads),
                    static_cast<unsigned>(n));
    if (heads.head_dim <= 32) {
      launch_kernel<32>(launch, grid, stream);
    } else if (heads.head_dim <= 64) {
      launch_kernel<64>(launch, grid, stream);
    } else if (heads.head_dim <= 96) {
      launch_kernel<96>(launch, grid, stream);
    } else {
      launch_kernel<128>(launch, grid, stream);
    }
  }
}

}  // namespace winnow::cuda
