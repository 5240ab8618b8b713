#include "model/quantization/transposed.h"

#include <algorithm>

#include "model/quantization/words.h"

namespace winnow::quantization {

std::vector<int32_t> TransposedValues::groups_in_order(int64_t n_cols, int64_t group_cols) {
  std::vector<int32_t> groups(static_cast<std::size_t>(n_cols));
  for (int64_t k = 0; k < n_cols; ++k) groups[static_cast<std::size_t>(k)] = static_cast<int32_t>(k / group_cols);
  return groups;
}

int64_t TransposedValues::place_of(int64_t row) const {
  if (!layout_.is_awq) return row;
  // Of eight rows the even ones come first.
  const int64_t in_word = row % 8;
  return row - in_word + in_word / 2 + (in_word % 2 != 0 ? 4 : 0);
}

uint32_t TransposedValues::code_at(int64_t row, int64_t col) const {
  const int64_t bits = layout_.bits;
  if (!layout_.is_awq) return Words{part(0).data, row, layout_.rows}.bits_at(col * bits, bits);
  return Words{part(0).data, col * (layout_.rows * bits / kWordBits), 1}.bits_at(place_of(row) * bits, bits);
}

float TransposedValues::zero_of(int64_t row, int64_t group) const {
  const int64_t bits = layout_.bits;
  const Words line{part(1).data, group * (layout_.rows * bits / kWordBits), 1};
  const int64_t mask = (int64_t{1} << bits) - 1;
  return static_cast<float>((line.bits_at(place_of(row) * bits, bits) + layout_.zero_offset) & mask);
}

void TransposedValues::find_blocks() {
  const auto end_of_first = std::ranges::find_if(layout_.groups, [](int32_t group) { return group != 0; });
  const auto n_cols = static_cast<int64_t>(end_of_first - layout_.groups.begin());
  if (n_cols > 0 && layout_.groups == groups_in_order(layout_.cols, n_cols)) block_cols_ = n_cols;
}

std::optional<kernels::PackedRows> TransposedValues::packed_rows() const {
  if (layout_.bits != 4 || block_cols_ == 0) return std::nullopt;
  return kernels::PackedRows{.cols = cols(), .block_cols = block_cols_, .code_bits = 4};
}

void TransposedValues::pack_row(int64_t row, std::byte* to) const {
  const kernels::PackedRows rows = *packed_rows();
  for (int64_t group = 0; group < rows.n_scales(); ++group) {
    put_scale(rows, group, scales_.at(group * layout_.rows + row), zero_of(row, group), to);
  }
  std::byte* const codes = to + rows.codes_at();
  for (int64_t col = 0; col < rows.cols; ++col) {
    const auto code = static_cast<std::byte>(code_at(row, col) << (col % 2 * 4));
    codes[col / 2] = col % 2 == 0 ? code : codes[col / 2] | code;
  }
}

void TransposedValues::read_row(int64_t row, int64_t first, int64_t n, float* to) const {
  std::vector<float> scales(static_cast<std::size_t>(layout_.n_groups));
  std::vector<float> zeros(static_cast<std::size_t>(layout_.n_groups));
  for (int64_t group = 0; group < layout_.n_groups; ++group) {
    zeros[static_cast<std::size_t>(group)] = zero_of(row, group);
    scales[static_cast<std::size_t>(group)] = scales_.at(group * layout_.rows + row);
  }
  for (int64_t i = 0; i < n; ++i) {
    const auto group = static_cast<std::size_t>(layout_.groups[static_cast<std::size_t>(first + i)]);
    to[i] = (static_cast<float>(code_at(row, first + i)) - zeros[group]) * scales[group];
  }
}

}  // namespace winnow::quantization
