#include "kernels/cuda/weights/unpack_rows.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kUnpackThreads = 256;

// One value at a time: the weights come over a bus that is many times slower than this.
__global__ void unpack_kernel(kernels::PackedRows rows, const std::byte* packed, Bf16* to) {
  const int64_t row = blockIdx.x;
  const std::byte* from = packed + row * rows.row_bytes();
  for (int64_t col = threadIdx.x; col < rows.cols; col += kUnpackThreads) {
    to[row * rows.cols + col] = __float2bfloat16_rn(kernels::packed_value(rows, from, col));
  }
}

}  // namespace

void unpack_rows(const kernels::PackedRows& rows, const std::byte* packed, int64_t n_rows, std::byte* to,
                 cudaStream_t stream) {
  if (n_rows == 0) return;
  unpack_kernel<<<static_cast<unsigned>(n_rows), kUnpackThreads, 0, stream>>>(rows, packed,
                                                                              reinterpret_cast<Bf16*>(to));
  WINNOW_CUDA_CHECK_LAUNCH();
}

}  // namespace winnow::cuda
