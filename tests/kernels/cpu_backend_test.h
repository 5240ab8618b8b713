// What tests of the CPU's operations share: made-up rows, and a backend for each variant of its kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "tests/kernels/kernel_variants.h"

namespace winnow::kernels {

using Floats = std::vector<float>;

inline Floats random_floats(int64_t count, uint32_t seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = normal(generator);
  return values;
}

inline Matrix matrix(const Floats& values, int64_t rows, int64_t cols) {
  return {values.data(), DType::kF32, rows, cols};
}

// Values as rows of `cols`.
inline Rows rows(Floats& values, int64_t cols) {
  return {values.data(), DType::kF32, static_cast<int64_t>(values.size()) / cols, cols};
}
inline ConstRows rows(const Floats& values, int64_t cols) {
  return {values.data(), DType::kF32, static_cast<int64_t>(values.size()) / cols, cols};
}

inline int64_t round_up(int64_t n, int64_t tile) { return (n + tile - 1) / tile * tile; }

// first, first + 1, ...
inline std::vector<int32_t> ascending(int64_t first, int64_t n) {
  std::vector<int32_t> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), static_cast<int32_t>(first));
  return values;
}

// Run once with each variant: kernels_test.cc names them.
class CpuBackendTest : public KernelVariantTest {
 protected:
  std::unique_ptr<Ops> ops_ = cpu::make_cpu_backend({.n_threads = 2});
  const int64_t tile_ = ops_->device().row_tile();
};

}  // namespace winnow::kernels
