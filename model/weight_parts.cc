#include "model/weight_parts.h"

#include <algorithm>
#include <memory>

#include "kernels/convert.h"
#include "model/quantization/values.h"

namespace winnow::model {
namespace {

// Rows of another tensor, those of every head in another order.
class SelectedRows final : public quantization::RowValues {
 public:
  SelectedRows(const kernels::HostTensor& tensor, int64_t first_row, std::vector<int64_t> order)
      : RowValues({tensor}, tensor.cols()), first_row_(first_row), order_(std::move(order)) {}

  std::optional<kernels::PackedRows> packed_rows() const override {
    return part(0).values ? part(0).values->packed_rows() : std::nullopt;
  }
  void pack_row(int64_t row, std::byte* to) const override { part(0).values->pack_row(source_row(row), to); }

 protected:
  void read_row(int64_t row, int64_t first, int64_t n, float* to) const override {
    kernels::read_float32(part(0), source_row(row) * cols() + first, n, to);
  }

 private:
  int64_t source_row(int64_t row) const {
    if (order_.empty()) return first_row_ + row;
    const auto head_dim = static_cast<int64_t>(order_.size());
    return first_row_ + row / head_dim * head_dim + order_[static_cast<std::size_t>(row % head_dim)];
  }

  int64_t first_row_;
  std::vector<int64_t> order_;  // (head_dim), or empty
};

// Rows of one expert out of the tensor of all: matrices, or vectors, which have one column.
class RowsOfExpert final : public kernels::TensorValues {
 public:
  RowsOfExpert(const kernels::HostTensor& tensor, const PartSpec& part)
      : stored_({tensor}), fused_(*part.fused), first_row_(part.first_row) {
    const bool is_vector = tensor.shape.size() == 2;
    cols_ = is_vector ? 1 : tensor.shape[fused_.is_transposed ? 1 : 2];
    n_rows_ = is_vector ? tensor.shape[1] : tensor.shape[fused_.is_transposed ? 2 : 1];
  }

  int64_t cols() const { return cols_; }
  const std::vector<kernels::HostTensor>& stored() const override { return stored_; }
  void read(int64_t first, int64_t count, float* to) const override {
    if (fused_.is_transposed && cols_ > 1) {
      read_columns(first, count, to);
      return;
    }
    for (int64_t end = first + count; first < end;) {
      const int64_t col = first % cols_;
      const int64_t n = std::min(cols_ - col, end - first);
      kernels::read_float32(stored_[0], (fused_.expert * n_rows_ + source_row(first / cols_)) * cols_ + col, n, to);
      first += n;
      to += n;
    }
  }

 private:
  int64_t source_row(int64_t row) const { return first_row_ + row * fused_.step; }

  // A row of ours is a column there: some of them are read together, so that a line of memory serves all of them.
  void read_columns(int64_t first, int64_t count, float* to) const {
    constexpr int64_t kTogether = 32;
    constexpr int64_t kMostStep = 2;
    float line[kTogether * kMostStep];
    const int64_t end = first + count;
    for (int64_t begin = first / cols_; begin * cols_ < end; begin += kTogether) {
      const int64_t n = std::min(kTogether, (end - 1) / cols_ + 1 - begin);
      for (int64_t col = 0; col < cols_; ++col) {
        const int64_t at = (fused_.expert * cols_ + col) * n_rows_ + source_row(begin);
        kernels::read_float32(stored_[0], at, (n - 1) * fused_.step + 1, line);
        for (int64_t i = 0; i < n; ++i) {
          const int64_t element = (begin + i) * cols_ + col;
          if (element >= first && element < end) to[element - first] = line[i * fused_.step];
        }
      }
    }
  }

  std::vector<kernels::HostTensor> stored_;
  FusedExpert fused_;
  int64_t first_row_;
  int64_t cols_ = 1;
  int64_t n_rows_ = 0;  // of an expert there
};

kernels::HostTensor rows_of_expert(const kernels::HostTensor& tensor, const PartSpec& part) {
  auto values = std::make_shared<RowsOfExpert>(tensor, part);
  std::vector<int64_t> shape = {part.n_rows};
  if (tensor.shape.size() > 2) shape.push_back(values->cols());
  return quantization::computed(tensor, std::move(shape), std::move(values));
}

}  // namespace

kernels::HostTensor part_of(const Checkpoint& checkpoint, const PartSpec& part, const std::vector<int64_t>& order) {
  const kernels::HostTensor& tensor = checkpoint.get(part.tensor.name, part.tensor.shape);
  if (part.fused) return rows_of_expert(tensor, part);
  if (part.is_row) {
    kernels::HostTensor vector = tensor;
    vector.shape = {part.n_rows};
    return vector;
  }
  const bool is_reordered = part.turns && !std::is_sorted(order.begin(), order.end());
  if (part.n_rows == tensor.rows() && !is_reordered) return tensor;
  kernels::HostTensor rows = tensor;
  rows.shape[0] = part.n_rows;
  if (!tensor.values && !is_reordered) {
    rows.data += part.first_row * tensor.cols() * kernels::size_bytes(tensor.dtype);
    return rows;
  }
  auto values = std::make_shared<SelectedRows>(tensor, part.first_row, is_reordered ? order : std::vector<int64_t>{});
  return quantization::computed(tensor, rows.shape, std::move(values));
}

}  // namespace winnow::model
