// What the tests of the CUDA backend share: the two backends side by side, and values that bfloat16 holds exactly.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"

namespace winnow {

using Floats = std::vector<float>;
using Attention = cuda::CudaOptions::Attention;

inline float round_to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U);
}

inline Floats random_values(int64_t count, uint32_t seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = round_to_bf16(normal(generator));
  return values;
}

inline int64_t round_up(int64_t n, int64_t tile) { return (n + tile - 1) / tile * tile; }

// Activations on both sides: float32 on the CPU, bfloat16 on the GPU.
class Twins {
 public:
  explicit Twins(Attention attention = Attention::kAuto, kernels::DType residual = kernels::DType::kBf16)
      : cpu_(cpu::make_cpu_backend({.n_threads = 0})),
        gpu_(cuda::make_cuda_backend({.device = 0, .attention = attention, .residual = residual})) {}

  kernels::Ops& cpu() { return *cpu_; }
  kernels::Ops& gpu() { return *gpu_; }

  // Values as rows of bfloat16 on the GPU, as rows of float32 there, and as rows of the CPU's.
  kernels::Rows upload(const Floats& values, int64_t cols) {
    std::vector<uint16_t> bits;
    for (const float v : values) bits.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16));
    return upload_bytes(std::as_bytes(std::span(bits))).rows(kernels::DType::kBf16, cols);
  }
  kernels::Rows upload_float32(const Floats& values, int64_t cols) {
    return upload_bytes(std::as_bytes(std::span(values))).rows(kernels::DType::kF32, cols);
  }
  static kernels::Rows host(Floats& values, int64_t cols) {
    return {values.data(), kernels::DType::kF32, static_cast<int64_t>(values.size()) / cols, cols};
  }
  kernels::Rows poisoned(int64_t n_rows, int64_t cols) {
    return upload(Floats(static_cast<std::size_t>(n_rows * cols), NAN), cols);
  }
  std::vector<uint16_t> bits(kernels::ConstRows rows) {
    gpu_->device().synchronize();
    std::vector<uint16_t> result(static_cast<std::size_t>(rows.count()));
    EXPECT_EQ(cudaMemcpy(result.data(), rows.data, result.size() * 2, cudaMemcpyDeviceToHost), cudaSuccess);
    return result;
  }
  Floats download(kernels::ConstRows rows) {
    Floats values;
    for (const uint16_t b : bits(rows)) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(b) << 16));
    return values;
  }
  kernels::Matrix matrix(const Floats& values, int64_t rows, int64_t cols) {
    return {upload(values, cols).data, kernels::DType::kBf16, rows, cols};
  }
  kernels::Matrix float32_vector(const Floats& values) {
    return {upload_float32(values, 1).data, kernels::DType::kF32, static_cast<int64_t>(values.size()), 1};
  }
  static kernels::Matrix host_matrix(Floats& values, int64_t rows, int64_t cols) {
    return {values.data(), kernels::DType::kF32, rows, cols};
  }

 private:
  kernels::Buffer& upload_bytes(std::span<const std::byte> bytes) {
    buffers_.push_back(gpu_->device().allocate(static_cast<int64_t>(bytes.size()), "a test"));
    gpu_->device().synchronize();
    EXPECT_EQ(cudaMemcpy(buffers_.back()->data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // a copy from pageable memory may return before it has arrived
    return *buffers_.back();
  }

  std::unique_ptr<kernels::Ops> cpu_;
  std::unique_ptr<kernels::Ops> gpu_;
  std::vector<std::unique_ptr<kernels::Buffer>> buffers_;
};

// Root mean square of the difference over that of the reference.
inline double relative_error(const Floats& found, const Floats& expected) {
  double difference = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - expected[i], 2.0);
    size += std::pow(static_cast<double>(expected[i]), 2.0);
  }
  return std::sqrt(difference / size);
}

}  // namespace winnow
