// Angles between residual rows, in float64: a block a row, whose threads' sums are added up in one order.

#include <cmath>
#include <numbers>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

constexpr int kAngleThreads = 128;

__device__ double as_double(float x) { return x; }
__device__ double as_double(Bf16 x) { return __bfloat162float(x); }

// Sums two numbers over the block: a tree of fixed shape. All threads get the sums.
__device__ double2 sum_over_block(double2 own) {
  __shared__ double2 parts[kAngleThreads];
  __syncthreads();
  parts[threadIdx.x] = own;
  __syncthreads();
  for (unsigned half = kAngleThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      parts[threadIdx.x].x += parts[threadIdx.x + half].x;
      parts[threadIdx.x].y += parts[threadIdx.x + half].y;
    }
    __syncthreads();
  }
  return parts[0];
}

// From the lengths of difference and sum of the unit vectors, as the twin on the CPU.
template <typename Element>
__global__ void __launch_bounds__(kAngleThreads)
    row_angles_kernel(const Element* a, const Element* b, int64_t cols, double* angles) {
  a += blockIdx.x * cols;
  b += blockIdx.x * cols;
  double2 squares{0.0, 0.0};
  for (int64_t i = threadIdx.x; i < cols; i += kAngleThreads) {
    squares.x += as_double(a[i]) * as_double(a[i]);
    squares.y += as_double(b[i]) * as_double(b[i]);
  }
  const double2 both = sum_over_block(squares);
  const double length_a = sqrt(both.x);
  const double length_b = sqrt(both.y);
  const bool has_zeros = both.x == 0.0 || both.y == 0.0;
  double2 sums{0.0, 0.0};  // of the squares of difference and sum
  for (int64_t i = threadIdx.x; i < cols && !has_zeros; i += kAngleThreads) {
    const double of_a = as_double(a[i]) / length_a;
    const double of_b = as_double(b[i]) / length_b;
    sums.x += (of_a - of_b) * (of_a - of_b);
    sums.y += (of_a + of_b) * (of_a + of_b);
  }
  const double2 lengths = sum_over_block(sums);
  if (threadIdx.x != 0) return;
  const double angle = 2.0 * atan2(sqrt(lengths.x), sqrt(lengths.y)) / std::numbers::pi;
  angles[blockIdx.x] = !has_zeros ? angle : both.x == both.y ? 0.0 : 0.5;
}

}  // namespace

void CudaBackend::do_row_angles(kernels::ConstRows a, kernels::ConstRows b, std::span<double> angles) {
  if (a.n_rows == 0) return;
  const auto on_device = allocate(static_cast<int64_t>(angles.size_bytes()), "angles of rows");
  auto* to = static_cast<double*>(on_device->data());
  const auto grid = static_cast<unsigned>(a.n_rows);
  if (a.dtype == kernels::DType::kF32) {
    row_angles_kernel<<<grid, kAngleThreads, 0, stream_>>>(a.as<float>(), b.as<float>(), a.cols, to);
  } else {
    row_angles_kernel<<<grid, kAngleThreads, 0, stream_>>>(a.as<Bf16>(), b.as<Bf16>(), a.cols, to);
  }
  WINNOW_CUDA_CHECK_LAUNCH();
  WINNOW_CUDA_CHECK(cudaMemcpyAsync(angles.data(), to, angles.size_bytes(), cudaMemcpyDeviceToHost, stream_));
}

}  // namespace winnow::cuda
