#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kCopyKvThreads = 128;

// Copies of one launch: its parameters must stay below 4 KiB.
constexpr int kCopiesPerLaunch = 128;

struct Copy {
  const Bf16x8* from;
  Bf16x8* to;
  int64_t n_vectors;
};

struct LaunchArguments {
  Copy copy[kCopiesPerLaunch];
};

__global__ void __launch_bounds__(kCopyKvThreads) copy_kernel(const __grid_constant__ LaunchArguments launch) {
  const Copy& copy = launch.copy[blockIdx.y];
  const int64_t step = static_cast<int64_t>(gridDim.x) * kCopyKvThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCopyKvThreads + threadIdx.x; i < copy.n_vectors; i += step) {
    copy.to[i] = copy.from[i];
  }
}

}  // namespace

// Rows lie one after another, keys and then values: a copy is one range of memory.
void CudaBackend::do_copy_kv(std::span<const kernels::KvCopy> copies, const kernels::HeadShape& heads) {
  const int64_t row_vectors = 2 * heads.kv_dim() / 8;
  LaunchArguments launch{};
  for (std::size_t begin = 0; begin < copies.size(); begin += kCopiesPerLaunch) {
    const std::size_t n = std::min<std::size_t>(kCopiesPerLaunch, copies.size() - begin);
    int64_t most = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const kernels::KvCopy& copy = copies[begin + i];
      launch.copy[i] = {kv_elements<Bf16x8>(copy.from) + copy.from_row * row_vectors,
                        kv_elements<Bf16x8>(copy.to) + copy.to_row * row_vectors, copy.n_rows * row_vectors};
      most = std::max(most, launch.copy[i].n_vectors);
    }
    if (most == 0) continue;
    const int64_t blocks = std::min<int64_t>((most + kCopyKvThreads - 1) / kCopyKvThreads, 1024);
    copy_kernel<<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(n)), kCopyKvThreads, 0, stream_>>>(launch);
    WINNOW_CUDA_CHECK_LAUNCH();
  }
}

}  // namespace winnow::cuda
