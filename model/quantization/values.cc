#include "model/quantization/values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/convert.h"

namespace winnow::quantization {

void RowValues::read(int64_t first, int64_t count, float* to) const {
  while (count > 0) {
    const int64_t col = first % cols_;
    const int64_t n = std::min(count, cols_ - col);
    read_row(first / cols_, col, n, to);
    first += n;
    count -= n;
    to += n;
  }
}

Scales::Scales(kernels::HostTensor tensor, Zeros zeros) : tensor_(std::move(tensor)) {
  require_type(tensor_, {"F32", "BF16", "F16", "F8_E4M3", "F8_E8M0", "U8"});
  kind_ = tensor_.dtype_name == "F8_E4M3"           ? Kind::kE4m3
          : tensor_.dtype == kernels::DType::kOther ? Kind::kE8m0
                                                    : Kind::kFloat;
  const int64_t n = tensor_.count();
  constexpr int64_t kPiece = 4096;
  float piece[kPiece];
  for (int64_t i = 0; i < n; ++i) {
    // A large model has billions of them.
    if (kind_ == Kind::kFloat && i % kPiece == 0) {
      kernels::to_float32(tensor_.data + i * kernels::size_bytes(tensor_.dtype), tensor_.dtype, std::min(kPiece, n - i),
                          piece);
    }
    const float scale = kind_ == Kind::kFloat ? piece[i % kPiece] : at(i);
    if (std::isfinite(scale) && (scale != 0.F || zeros == Zeros::kAllowed)) continue;
    const std::string found = scale == 0.F ? "0" : std::isnan(scale) ? "NaN" : "infinity";
    refuse(tensor_, std::string("scales that are finite") + (zeros == Zeros::kAllowed ? "" : " and not 0"),
           found + " as element " + std::to_string(i) + " of " + std::to_string(n));
  }
}

float Scales::at(int64_t i) const {
  if (kind_ == Kind::kE4m3) return kernels::e4m3_to_float(std::to_integer<uint8_t>(tensor_.data[i]));
  if (kind_ == Kind::kE8m0) return e8m0_to_float(std::to_integer<uint8_t>(tensor_.data[i]));
  float scale = 0.F;
  kernels::to_float32(tensor_.data + i * kernels::size_bytes(tensor_.dtype), tensor_.dtype, 1, &scale);
  return scale;
}

ScaleGrid make_grid(const kernels::HostTensor& scales, int64_t rows, int64_t cols, Weights& weights, Zeros zeros) {
  if (scales.count() == 1 && weights.may_be_one_scale) weights.block_rows = weights.block_cols = Weights::kAll;
  const auto extent = [](int64_t block, int64_t all) {
    return block == Weights::kAll ? std::max<int64_t>(all, 1) : block;
  };
  ScaleGrid grid;
  grid.block_rows = extent(weights.block_rows, rows);
  grid.block_cols = extent(weights.block_cols, cols);
  const std::vector<int64_t> shape = {ceil_div(rows, grid.block_rows), ceil_div(cols, grid.block_cols)};
  grid.n_cols = shape[1];
  // One scale may have any number of dimensions; one for each row may lack the second.
  const bool is_scalar = shape[0] * shape[1] == 1 && scales.count() == 1 && scales.shape.size() <= 2;
  const bool is_vector = shape[1] == 1 && scales.shape == std::vector<int64_t>{shape[0]};
  if (!is_scalar && !is_vector) require_shape(scales, shape);
  grid.scales = Scales(scales, zeros);
  return grid;
}

void ScaledValues::read_row(int64_t row, int64_t first, int64_t n, float* to) const {
  decode_(part(0).data + row * row_bytes_, first, n, to);
  const int64_t begin_of_scales = row / grid_.block_rows * grid_.n_cols;
  for (int64_t at = 0; at < n;) {
    const int64_t block = (first + at) / grid_.block_cols;
    const int64_t end = std::min(n, (block + 1) * grid_.block_cols - first);
    const float scale = grid_.at(begin_of_scales + block);
    for (; at < end; ++at) to[at] *= scale;
  }
}

void put_scale(const kernels::PackedRows& rows, int64_t block, float scale, float zero, std::byte* row) {
  constexpr int64_t kSize = sizeof(float);
  std::memcpy(row + block * kSize, &scale, kSize);
  std::memcpy(row + (rows.n_scales() + block) * kSize, &zero, kSize);
}

kernels::HostTensor computed(const kernels::HostTensor& like, std::vector<int64_t> shape,
                             std::shared_ptr<const kernels::TensorValues> values) {
  kernels::HostTensor tensor;
  tensor.dtype = kernels::DType::kF32;
  tensor.shape = std::move(shape);
  tensor.name = like.name;
  tensor.dtype_name = like.dtype_name;
  tensor.values = std::move(values);
  return tensor;
}

}  // namespace winnow::quantization
