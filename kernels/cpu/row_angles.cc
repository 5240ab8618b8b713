// Angles between residual rows on the CPU: one task a row.

#include <cmath>
#include <cstdint>
#include <numbers>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

double length_of(const float* row, int64_t cols) {
  double squares = 0.0;
  for (int64_t i = 0; i < cols; ++i) squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
  return std::sqrt(squares);
}

// From the lengths of difference and sum of the unit vectors: the arccos of a cosine near 1 would lose half of the
// digits.
double angle_of(const float* a, const float* b, int64_t cols) {
  const double length_a = length_of(a, cols);
  const double length_b = length_of(b, cols);
  if (length_a == 0.0 || length_b == 0.0) return length_a == length_b ? 0.0 : 0.5;
  double difference = 0.0;
  double sum = 0.0;
  for (int64_t i = 0; i < cols; ++i) {
    const double of_a = static_cast<double>(a[i]) / length_a;
    const double of_b = static_cast<double>(b[i]) / length_b;
    difference += (of_a - of_b) * (of_a - of_b);
    sum += (of_a + of_b) * (of_a + of_b);
  }
  return 2.0 * std::atan2(std::sqrt(difference), std::sqrt(sum)) / std::numbers::pi;
}

}  // namespace

void CpuBackend::do_row_angles(kernels::ConstRows a, kernels::ConstRows b, std::span<double> angles) {
  const auto* of_a = a.as<float>();
  const auto* of_b = b.as<float>();
  pool_.run(a.n_rows, [&](int64_t row, int) {
    angles[static_cast<std::size_t>(row)] = angle_of(of_a + row * a.cols, of_b + row * a.cols, a.cols);
  });
}

}  // namespace winnow::cpu
