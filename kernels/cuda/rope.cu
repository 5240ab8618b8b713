#include <bit>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kRopeThreads = 256;

struct HeadArguments {
  const Bf16x4* norm;  // (head_dim), or null
  kernels::NormShape shape;
  const Float4* angles;  // (n_positions, head_dim)
  int32_t n_positions;
  const int32_t* positions;  // (n_rows)
  int half_vectors;          // of half a head
};

// Norm and rotation of one head by kLanes neighbouring threads, each with four elements of both halves; in float32,
// rounded once. from and to may be the same.
template <int kLanes>
__device__ void norm_and_rotate(const Bf16x4* from, Bf16x4* to, const HeadArguments& args, int64_t row) {
  const int lane = threadIdx.x % kLanes;
  const int half = args.half_vectors;
  const bool is_active = lane < half;
  float first[4] = {};
  float second[4] = {};
  if (is_active) {
    from[lane].to_float(first);
    from[half + lane].to_float(second);
  }
  if (args.norm != nullptr) {
    float sum = 0.0F;
#pragma unroll
    for (int e = 0; e < 4; ++e) sum += first[e] * first[e] + second[e] * second[e];
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xFFFFFFFFU, sum, offset);
    const float inverse = rsqrtf(sum / static_cast<float>(8 * half) + args.shape.eps);
    if (is_active) {
      float w[4];
      args.norm[lane].to_float(w);
#pragma unroll
      for (int e = 0; e < 4; ++e) first[e] *= inverse * (args.shape.offset + w[e]);
      args.norm[half + lane].to_float(w);
#pragma unroll
      for (int e = 0; e < 4; ++e) second[e] *= inverse * (args.shape.offset + w[e]);
    }
  }
  if (!is_active) return;
  const int32_t position = min(args.positions[row], args.n_positions - 1);
  const Float4* angles = args.angles + static_cast<int64_t>(position) * 2 * half;
  float cosine[4];
  float sine[4];
  angles[lane].to_float(cosine);
  angles[half + lane].to_float(sine);
  float rotated_first[4];
  float rotated_second[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    rotated_first[e] = first[e] * cosine[e] - second[e] * sine[e];
    rotated_second[e] = second[e] * cosine[e] + first[e] * sine[e];
  }
  to[lane] = Bf16x4::from_float(rotated_first);
  to[half + lane] = Bf16x4::from_float(rotated_second);
}

// Heads are counted over all rows. A warp's threads stay together, also beyond the last head: they shuffle.
template <int kLanes>
__global__ void __launch_bounds__(kRopeThreads)
    rope_kernel(Bf16x4* q, HeadArguments args, int n_heads, int64_t n_rows) {
  const int64_t task = (static_cast<int64_t>(blockIdx.x) * kRopeThreads + threadIdx.x) / kLanes;
  const int64_t head = min(task, n_rows * n_heads - 1);
  Bf16x4* at = q + head * 2 * args.half_vectors;
  if (task != head) args.half_vectors = 0;
  norm_and_rotate<kLanes>(at, at, args, head / n_heads);
}

// kv and to: (n_rows, 2 * kv_dim), a row's keys and then its values.
template <int kLanes>
__global__ void __launch_bounds__(kRopeThreads)
    store_kv_kernel(const Bf16x4* kv, Bf16x4* to, HeadArguments args, int n_kv_heads, int64_t n_rows) {
  const int64_t task = (static_cast<int64_t>(blockIdx.x) * kRopeThreads + threadIdx.x) / kLanes;
  const int64_t head = min(task, n_rows * n_kv_heads - 1);
  const int vectors = 2 * args.half_vectors;
  if (task != head) args.half_vectors = 0;
  const int64_t row = head / n_kv_heads;
  const int64_t key = (row * 2 * n_kv_heads + head % n_kv_heads) * vectors;
  const int64_t value = key + static_cast<int64_t>(n_kv_heads) * vectors;
  norm_and_rotate<kLanes>(kv + key, to + key, args, row);
  for (int i = threadIdx.x % kLanes; i < 2 * args.half_vectors; i += kLanes) to[value + i] = kv[value + i];
}

// Norms in place pieces of rows, one warp a piece: n_pieces a row, one after another, each as long as the weight.
__global__ void __launch_bounds__(kRopeThreads)
    piece_norm_kernel(Bf16x8* x, const Bf16x8* weight, kernels::NormShape shape, int n_vectors, int n_pieces,
                      int64_t row_vectors, int64_t n_rows) {
  const int64_t task = (static_cast<int64_t>(blockIdx.x) * kRopeThreads + threadIdx.x) / kWarp;
  if (task >= n_rows * n_pieces) return;
  Bf16x8* piece = x + task / n_pieces * row_vectors + task % n_pieces * n_vectors;
  float sum = 0.0F;
  for (int i = threadIdx.x % kWarp; i < n_vectors; i += kWarp) {
    float v[8];
    piece[i].to_float(v);
#pragma unroll
    for (const float e : v) sum += e * e;
  }
  const float inverse = rsqrtf(warp_sum(sum) / static_cast<float>(8 * n_vectors) + shape.eps);
  for (int i = threadIdx.x % kWarp; i < n_vectors; i += kWarp) {
    float v[8];
    float w[8];
    piece[i].to_float(v);
    weight[i].to_float(w);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] *= inverse * (shape.offset + w[e]);
    piece[i] = Bf16x8::from_float(v);
  }
}

// Norms n_heads heads at the beginning of each row of `cols` elements, by themselves or together.
void norm_heads(Bf16* x, int64_t n_rows, int64_t cols, int64_t n_elements, const kernels::Norm& norm,
                cudaStream_t stream) {
  const int64_t n_pieces = n_elements / norm.weight.rows;
  const auto blocks = static_cast<unsigned>((n_rows * n_pieces * kWarp + kRopeThreads - 1) / kRopeThreads);
  piece_norm_kernel<<<blocks, kRopeThreads, 0, stream>>>(reinterpret_cast<Bf16x8*>(x), norm.weight.as<Bf16x8>(),
                                                         norm.shape, static_cast<int>(norm.weight.rows / 8),
                                                         static_cast<int>(n_pieces), cols / 8, n_rows);
  WINNOW_CUDA_CHECK_LAUNCH();
}

// The kernels that turn heads norm each by itself before, in one go. All other norms are a kernel of their own.
bool is_fused(const kernels::HeadShape& heads, const kernels::HeadNorm& norm) {
  return !norm.norm || (!norm.after_rope && norm.norm.weight.rows == heads.head_dim);
}

HeadArguments arguments(const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                        const kernels::RowAngles& angles) {
  return {.norm = is_fused(heads, norm) ? norm.norm.weight.as<Bf16x4>() : nullptr,
          .shape = norm.norm.shape,
          .angles = angles.cos_sin.as<Float4>(),
          .n_positions = static_cast<int32_t>(angles.cos_sin.rows),
          .positions = angles.positions.data(),
          .half_vectors = static_cast<int>(heads.head_dim / 8)};
}

// Calls `launch` with the number of threads of a head as a constant, and the blocks for n heads.
template <typename Launch>
void with_lanes(const kernels::HeadShape& heads, int64_t n, Launch launch) {
  const auto blocks = [&](int64_t lanes) {
    return static_cast<unsigned>((n * lanes + kRopeThreads - 1) / kRopeThreads);
  };
  switch (std::bit_ceil(static_cast<uint64_t>(heads.head_dim / 8))) {
    case 1:
      launch(std::integral_constant<int, 1>(), blocks(1));
      break;
    case 2:
      launch(std::integral_constant<int, 2>(), blocks(2));
      break;
    case 4:
      launch(std::integral_constant<int, 4>(), blocks(4));
      break;
    case 8:
      launch(std::integral_constant<int, 8>(), blocks(8));
      break;
    case 16:
      launch(std::integral_constant<int, 16>(), blocks(16));
      break;
    default:
      launch(std::integral_constant<int, 32>(), blocks(32));
      break;
  }
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace

void CudaBackend::do_rope(kernels::Rows q, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                          const kernels::RowAngles& angles) {
  if (q.n_rows == 0) return;
  const auto norm_queries = [&] { norm_heads(q.as<Bf16>(), q.n_rows, q.cols, q.cols, norm.norm, stream_); };
  if (!is_fused(heads, norm) && !norm.after_rope) norm_queries();
  with_lanes(heads, q.n_rows * heads.n_heads, [&](auto lanes, unsigned blocks) {
    rope_kernel<lanes()><<<blocks, kRopeThreads, 0, stream_>>>(q.as<Bf16x4>(), arguments(heads, norm, angles),
                                                               static_cast<int>(heads.n_heads), q.n_rows);
  });
  if (!is_fused(heads, norm) && norm.after_rope) norm_queries();
}

void CudaBackend::do_store_kv(kernels::Rows kv, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                              const kernels::RowAngles& angles, kernels::KvSpan to) {
  if (kv.n_rows == 0) return;
  const auto norm_keys = [&](Bf16* rows) { norm_heads(rows, kv.n_rows, kv.cols, heads.kv_dim(), norm.norm, stream_); };
  if (!is_fused(heads, norm) && !norm.after_rope) norm_keys(kv.as<Bf16>());
  with_lanes(heads, kv.n_rows * heads.n_kv_heads, [&](auto lanes, unsigned blocks) {
    store_kv_kernel<lanes()><<<blocks, kRopeThreads, 0, stream_>>>(kv.as<Bf16x4>(), kv_elements<Bf16x4>(to),
                                                                   arguments(heads, norm, angles),
                                                                   static_cast<int>(heads.n_kv_heads), kv.n_rows);
  });
  if (!is_fused(heads, norm) && norm.after_rope) norm_keys(kv_elements<Bf16>(to));
}

}  // namespace winnow::cuda
