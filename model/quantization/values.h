// Weights as codes and scales: the numbers that both are made of, and their product, row by row.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/tensor.h"
#include "model/quantization/parts.h"
#include "model/quantization/scheme.h"

namespace winnow::quantization {

// 2^(code - 127), a subnormal number for 0; 255 is NaN.
inline float e8m0_to_float(uint8_t code) {
  if (code == 0xFFU) return std::bit_cast<float>(0x7FC00000U);
  return std::bit_cast<float>(code == 0 ? 0x00400000U : static_cast<uint32_t>(code) << 23);
}

// A matrix of computed values; of a tensor of more dimensions all but the last are rows.
class RowValues : public kernels::TensorValues {
 public:
  RowValues(std::vector<kernels::HostTensor> stored, int64_t cols) : stored_(std::move(stored)), cols_(cols) {}

  void read(int64_t first, int64_t count, float* to) const final;
  const std::vector<kernels::HostTensor>& stored() const final { return stored_; }

 protected:
  // Columns [first, first + n) of a row.
  virtual void read_row(int64_t row, int64_t first, int64_t n, float* to) const = 0;
  const kernels::HostTensor& part(std::size_t i) const { return stored_[i]; }
  int64_t cols() const { return cols_; }

 private:
  std::vector<kernels::HostTensor> stored_;
  int64_t cols_;
};

// How a scale may look. A zero stands for nothing but a mistake, except where tiny numbers have become zero.
enum class Zeros { kRefused, kAllowed };

// Scales in any floating-point type. E8M0 exponents lie in F8_E8M0 or U8.
class Scales {
 public:
  Scales() = default;
  // Throws Error(kBadData) naming the element unless all are finite and not zero.
  explicit Scales(kernels::HostTensor tensor, Zeros zeros = Zeros::kRefused);

  float at(int64_t i) const;

 private:
  enum class Kind { kFloat, kE4m3, kE8m0 };
  kernels::HostTensor tensor_;
  Kind kind_ = Kind::kFloat;
};

// The scales of a matrix in blocks, and what all of them are multiplied with or divided by.
struct ScaleGrid {
  Scales scales;  // (ceil(rows / block_rows), ceil(cols / block_cols))
  int64_t block_rows = 1;
  int64_t block_cols = 1;
  int64_t n_cols = 1;  // of the grid
  enum class Global { kNone, kMultiply, kDivide } rule = Global::kNone;
  float global = 1.F;

  float at(int64_t i) const {
    const float scale = scales.at(i);
    return rule == Global::kNone ? scale : rule == Global::kMultiply ? scale * global : scale / global;
  }
};

// The grid of a matrix (rows, cols) in blocks as `weights` says. Throws Error(kBadData) for scales of another shape.
// Where one scale may stand for all blocks and does, `weights` then says so.
ScaleGrid make_grid(const kernels::HostTensor& scales, int64_t rows, int64_t cols, Weights& weights,
                    Zeros zeros = Zeros::kRefused);

// `n` codes of a row from column `first`, as numbers. `row` is where the row's bytes begin.
using Decode = void (*)(const std::byte* row, int64_t first, int64_t n, float* to);

// Code times scale. stored[0] holds the codes.
class ScaledValues : public RowValues {
 public:
  ScaledValues(std::vector<kernels::HostTensor> stored, int64_t cols, int64_t row_bytes, Decode decode, ScaleGrid grid)
      : RowValues(std::move(stored), cols), row_bytes_(row_bytes), decode_(decode), grid_(std::move(grid)) {}

 protected:
  void read_row(int64_t row, int64_t first, int64_t n, float* to) const override;
  const ScaleGrid& grid() const { return grid_; }

 private:
  int64_t row_bytes_;
  Decode decode_;
  ScaleGrid grid_;
};

// Writes a scale and its zero point into a packed row of codes of four bits.
void put_scale(const kernels::PackedRows& rows, int64_t block, float scale, float zero, std::byte* row);

// The tensor of a module's values: `like` gives the name.
kernels::HostTensor computed(const kernels::HostTensor& like, std::vector<int64_t> shape,
                             std::shared_ptr<const kernels::TensorValues> values);

}  // namespace winnow::quantization
