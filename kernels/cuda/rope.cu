#include <bit>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kRopeThreads = 256;

struct HeadArguments {
  const Bf16x4* norm;  // (head_dim), or null
  float eps;
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
    const float inverse = rsqrtf(sum / static_cast<float>(8 * half) + args.eps);
    if (is_active) {
      float w[4];
      args.norm[lane].to_float(w);
#pragma unroll
      for (int e = 0; e < 4; ++e) first[e] *= inverse * w[e];
      args.norm[half + lane].to_float(w);
#pragma unroll
      for (int e = 0; e < 4; ++e) second[e] *= inverse * w[e];
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

HeadArguments arguments(const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                        const kernels::RowAngles& angles) {
  return {.norm = norm.weight.as<Bf16x4>(),
          .eps = norm.eps,
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
  with_lanes(heads, q.n_rows * heads.n_heads, [&](auto lanes, unsigned blocks) {
    rope_kernel<lanes()><<<blocks, kRopeThreads, 0, stream_>>>(q.as<Bf16x4>(), arguments(heads, norm, angles),
                                                               static_cast<int>(heads.n_heads), q.n_rows);
  });
}

void CudaBackend::do_store_kv(kernels::Rows kv, const kernels::HeadShape& heads, const kernels::HeadNorm& norm,
                              const kernels::RowAngles& angles, kernels::KvSpan to) {
  if (kv.n_rows == 0) return;
  with_lanes(heads, kv.n_rows * heads.n_kv_heads, [&](auto lanes, unsigned blocks) {
    store_kv_kernel<lanes()><<<blocks, kRopeThreads, 0, stream_>>>(kv.as<Bf16x4>(), kv_elements<Bf16x4>(to),
                                                                   arguments(heads, norm, angles),
                                                                   static_cast<int>(heads.n_kv_heads), kv.n_rows);
  });
}

}  // namespace winnow::cuda
