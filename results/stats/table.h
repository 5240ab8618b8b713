// Matrices of measured numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace winnow::stats {

// Row-major table (rows, cols).
template <typename T>
struct Table {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<T> values;

  Table() = default;
  Table(int64_t n_rows, int64_t n_cols, T fill = T{})
      : rows(n_rows), cols(n_cols), values(static_cast<std::size_t>(n_rows * n_cols), fill) {}
  T& operator()(int64_t row, int64_t col) { return values[static_cast<std::size_t>(row * cols + col)]; }
  const T& operator()(int64_t row, int64_t col) const { return values[static_cast<std::size_t>(row * cols + col)]; }
};

}  // namespace winnow::stats
