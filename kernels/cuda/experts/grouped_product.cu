// One block is 128 rows of one expert by 128 rows of its weights, 64 by 64 for each of its 4 warps. It walks along n_in
// in steps of 64, which cp.async brings in two steps ahead. Of a gated product, each warp has 32 columns of gate and
// the same 32 of up, so that a thread has both of a pair. What lies outside is filled with zeros.

#include "kernels/cuda/check.h"
#include "kernels/cuda/experts/grouped_product.cuh"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/gated.cuh"

namespace winnow::cuda {

namespace {

constexpr int kTileRows = kExpertTileRows;
constexpr int kTileCols = 128;
constexpr int kDepth = 64;  // of a step
constexpr int kStages = 3;
constexpr int kThreads = 128;
constexpr int kWarpRows = 64;
constexpr int kWarpCols = 64;
constexpr int kFragments = kWarpRows / 16;
constexpr int kColumnTiles = kWarpCols / 8;
constexpr int kPieces = kDepth / 8;
constexpr int kRowsAtATime = kThreads / kPieces;   // that the block copies
constexpr int kCopies = kTileRows / kRowsAtATime;  // of a thread, a step and a side
constexpr int kGatedCols = kTileCols / 2;          // outputs of a tile of a gated product
constexpr int kGatedWarpCols = kWarpCols / 2;      // and of a warp of it
static_assert(kTileRows == kTileCols && kTileRows % kRowsAtATime == 0 && kGatedWarpCols % kRowsAtATime == 0);
static_assert(kTileRows == 2 * kWarpRows && kTileCols == 2 * kWarpCols && kThreads == 4 * kWarp);

struct alignas(16) SharedStages {
  Bf16 x[kStages][kTileRows * kDepth];
  Bf16 weight[kStages][kTileCols * kDepth];
};
// Two blocks share an SM of an H100, and one fits smaller GPUs.
static_assert(sizeof(SharedStages) <= 99 * 1024);

struct Plain {
  static constexpr bool kIsGated = false;
  using Out = float;
};
template <kernels::Activation kActivation>
struct Gated {
  static constexpr bool kIsGated = true;
  using Out = Bf16;
  __device__ static float of(float gate, float up) { return gated<kActivation>(gate, up); }
};

// Where row `row` of a tile of weights comes from.
struct WeightRow {
  int column;  // of the output
  int is_up;
};
template <bool kIsGated>
__host__ __device__ constexpr WeightRow weight_row(int tile, int row) {
  if (!kIsGated) return {tile * kTileCols + row, 0};
  const int in_warp = row % kWarpCols;
  const int column = row / kWarpCols * kGatedWarpCols + in_warp % kGatedWarpCols;
  return {tile * kGatedCols + column, in_warp / kGatedWarpCols};
}
static_assert(weight_row<true>(0, 0).column == 0 && weight_row<true>(0, 31).is_up == 0);
static_assert(weight_row<true>(0, 32).column == 0 && weight_row<true>(0, 32).is_up == 1);
static_assert(weight_row<true>(1, 64).column == 96 && weight_row<true>(1, 127).column == 127);
static_assert(weight_row<false>(2, 5).column == 261);

template <typename Kind>
class Block {
 public:
  __device__ Block(const GroupedProduct& product, const ExpertTile& tile, int column_tile, SharedStages& shared)
      : product_(product), tile_(tile), column_tile_(column_tile), shared_(shared) {
    constexpr int kSides = Kind::kIsGated ? 2 : 1;
    const int64_t first_row = static_cast<int64_t>(tile.expert) * kSides * product.n_out;
    weight_ = product.weight + first_row * product.n_in;
    bias_ = product.bias == nullptr ? nullptr : product.bias + first_row;
#pragma unroll
    for (int j = 0; j < kCopies; ++j) {
      const int row = copied_row(j);
      rows_[j] = -1;
      if (row < tile.n_rows) rows_[j] = product.rows == nullptr ? tile.first + row : product.rows[tile.first + row];
    }
  }

  __device__ void run(typename Kind::Out* out) {
    const int n_steps = (product_.n_in + kDepth - 1) / kDepth;
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      if (step < n_steps) fetch(step, step);
      commit_copies();
    }
    int stage = 0;
    for (int step = 0; step < n_steps; ++step) {
      wait_copies_but<kStages - 2>();
      __syncthreads();  // this step is there, and nobody reads the one before any more
      const int ahead = step + kStages - 1;
      // The stage of the step before.
      if (ahead < n_steps) fetch(ahead, stage == 0 ? kStages - 1 : stage - 1);
      commit_copies();  // empty where there is nothing: the groups are counted
      if (first_row() < tile_.n_rows) accumulate(stage);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    write(out);
  }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int first_row() { return warp() / 2 * kWarpRows; }
  __device__ static int first_column() { return warp() % 2 * kWarpCols; }
  __device__ static int copied_row(int j) { return static_cast<int>(threadIdx.x) / kPieces + j * kRowsAtATime; }

  __device__ void fetch(int step, int stage) {
    const int piece = static_cast<int>(threadIdx.x) % kPieces;
    const int k = step * kDepth + piece * 8;
    const bool is_inside = k < product_.n_in;
#pragma unroll
    for (int j = 0; j < kCopies; ++j) {
      const int row = copied_row(j);
      const bool has_x = is_inside && rows_[j] >= 0;
      const int64_t x_at = has_x ? static_cast<int64_t>(rows_[j]) * product_.n_in + k : 0;
      copy_async(shared_.x[stage] + swizzled<kDepth>(row, piece), product_.x + x_at, has_x);
      const WeightRow from = weight_row<Kind::kIsGated>(column_tile_, row);
      const bool has_weight = is_inside && from.column < product_.n_out;
      const int64_t weight_at =
          has_weight ? (static_cast<int64_t>(from.is_up) * product_.n_out + from.column) * product_.n_in + k : 0;
      copy_async(shared_.weight[stage] + swizzled<kDepth>(row, piece), weight_ + weight_at, has_weight);
    }
  }

  __device__ void accumulate(int stage) {
    const Bf16* x = shared_.x[stage];
    const Bf16* weight = shared_.weight[stage];
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      uint32_t a[kFragments][4];
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
        const int row = first_row() + m * 16 + (lane() & 15);
        load_matrices(a[m], x + swizzled<kDepth>(row, k * 2 + (lane() >> 4)));
      }
#pragma unroll
      for (int c = 0; c < kColumnTiles; c += 2) {
        // Columns c*8 .. c*8+15 by depth k*16 .. k*16+15, as two column tiles.
        uint32_t b[4];
        const int column = first_column() + c * 8 + (lane() & 7) + ((lane() >> 4) << 3);
        load_matrices(b, weight + swizzled<kDepth>(column, k * 2 + ((lane() >> 3) & 1)));
#pragma unroll
        for (int m = 0; m < kFragments; ++m) {
          multiply(sums_[m][c], a[m], b[0], b[1]);
          multiply(sums_[m][c + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // The biases of two neighbouring columns.
  __device__ float2 bias_of(int column) const {
    if (bias_ == nullptr) return {0.0F, 0.0F};
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(bias_ + column));
  }

  __device__ void write(typename Kind::Out* out) const {
    constexpr int kOutTiles = Kind::kIsGated ? kColumnTiles / 2 : kColumnTiles;
#pragma unroll
    for (int c = 0; c < kOutTiles; ++c) {
      // The columns of this thread's first pair in the tile of weights, and in the output.
      const int in_tile = first_column() + c * 8 + (lane() % 4) * 2;
      const int column = weight_row<Kind::kIsGated>(column_tile_, in_tile).column;
      if (column >= product_.n_out) continue;
      const float2 bias = bias_of(column);
      const float2 up_bias = Kind::kIsGated ? bias_of(product_.n_out + column) : float2{};
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row() + m * 16 + half * 8 + lane() / 4;
          if (row >= tile_.n_rows) continue;
          typename Kind::Out* to = out + static_cast<int64_t>(tile_.first + row) * product_.n_out + column;
          const float low = sums_[m][c][2 * half] + bias.x;
          const float high = sums_[m][c][2 * half + 1] + bias.y;
          if constexpr (Kind::kIsGated) {
            const float up_low = sums_[m][c + kOutTiles][2 * half] + up_bias.x;
            const float up_high = sums_[m][c + kOutTiles][2 * half + 1] + up_bias.y;
            *reinterpret_cast<uint32_t*>(to) = pack(Kind::of(low, up_low), Kind::of(high, up_high));
          } else if (product_.n_out % 2 == 0) {
            *reinterpret_cast<float2*>(to) = {low, high};
          } else {
            to[0] = low;
            if (column + 1 < product_.n_out) to[1] = high;
          }
        }
      }
    }
  }

  const GroupedProduct& product_;
  const ExpertTile tile_;
  const int column_tile_;
  SharedStages& shared_;
  const Bf16* weight_;  // of the expert
  const Bf16* bias_;
  int rows_[kCopies];  // rows of x that this thread copies; -1: none
  float sums_[kFragments][kColumnTiles][4] = {};
};

__device__ inline ExpertTile tile_of(const GroupedProduct& product, int64_t i) {
  if (product.tiles != nullptr) return product.tiles[i];
  const int64_t first = i * kTileRows;
  return {0, static_cast<int>(first), static_cast<int>(min(int64_t{kTileRows}, product.n_rows - first))};
}

template <typename Kind>
__global__ void __launch_bounds__(kThreads, 2) grouped_product_kernel(const __grid_constant__ GroupedProduct product,
                                                                      int n_column_tiles, typename Kind::Out* out) {
  extern __shared__ unsigned char memory[];
  // Blocks that follow one another share the rows of x.
  const ExpertTile tile = tile_of(product, blockIdx.x / static_cast<unsigned>(n_column_tiles));
  if (tile.n_rows == 0) return;
  const auto column_tile = static_cast<int>(blockIdx.x % static_cast<unsigned>(n_column_tiles));
  Block<Kind>(product, tile, column_tile, *reinterpret_cast<SharedStages*>(memory)).run(out);
}

template <typename Kind>
void launch(const GroupedProduct& product, typename Kind::Out* out, cudaStream_t stream) {
  constexpr int kCols = Kind::kIsGated ? kGatedCols : kTileCols;
  const int n_column_tiles = (product.n_out + kCols - 1) / kCols;
  constexpr std::size_t kSharedBytes = sizeof(SharedStages);
  WINNOW_CUDA_CHECK(cudaFuncSetAttribute(grouped_product_kernel<Kind>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(kSharedBytes)));
  grouped_product_kernel<Kind>
      <<<static_cast<unsigned>(product.n_tiles * n_column_tiles), kThreads, kSharedBytes, stream>>>(
          product, n_column_tiles, out);
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

void grouped_product(const GroupedProduct& product, float* out, cudaStream_t stream) {
  launch<Plain>(product, out, stream);
}

void gated_grouped_product(const GroupedProduct& product, kernels::Activation activation, Bf16* out,
                           cudaStream_t stream) {
  with_activation(activation, [&](auto kind) { launch<Gated<kind.value>>(product, out, stream); });
}

}  // namespace winnow::cuda
