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

}  // namespace

kernels::HostTensor part_of(const Checkpoint& checkpoint, const PartSpec& part, const std::vector<int64_t>& order) {
  const kernels::HostTensor& tensor = checkpoint.get(part.tensor.name, part.tensor.shape);
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
