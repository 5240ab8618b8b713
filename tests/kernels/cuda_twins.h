// What the tests of the CUDA backend share: the two backends side by side, and values that bfloat16 holds exactly.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <memory>
#include <random>
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

  void* upload(const Floats& values) {
    std::vector<uint16_t> bits;
    for (const float v : values) bits.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16));
    return upload_bytes(bits.data(), bits.size() * 2);
  }
  void* upload_bytes(const void* data, std::size_t size) {
    buffers_.push_back(gpu_->device().allocate(static_cast<int64_t>(size), "a test"));
    gpu_->device().synchronize();
    EXPECT_EQ(cudaMemcpy(buffers_.back()->data(), data, size, cudaMemcpyHostToDevice), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // a copy from pageable memory may return before it has arrived
    return buffers_.back()->data();
  }
  void* poisoned(int64_t count) { return upload(Floats(static_cast<std::size_t>(count), NAN)); }
  std::vector<uint16_t> bits(const void* data, int64_t count) {
    gpu_->device().synchronize();
    std::vector<uint16_t> result(static_cast<std::size_t>(count));
    EXPECT_EQ(cudaMemcpy(result.data(), data, result.size() * 2, cudaMemcpyDeviceToHost), cudaSuccess);
    return result;
  }
  Floats download(const void* data, int64_t count) {
    Floats values;
    for (const uint16_t b : bits(data, count)) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(b) << 16));
    return values;
  }
  kernels::Matrix matrix(const Floats& values, int64_t rows, int64_t cols) {
    return {upload(values), kernels::DType::kBf16, rows, cols};
  }
  static kernels::Matrix host_matrix(Floats& values, int64_t rows, int64_t cols) {
    return {values.data(), kernels::DType::kF32, rows, cols};
  }

 private:
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
