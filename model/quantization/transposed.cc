#include "model/quantization/transposed.h"

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

void TransposedValues::read_row(int64_t row, int64_t first, int64_t n, float* to) const {
  const int64_t bits = layout_.bits;
  const int64_t place = place_of(row);
  const int64_t line_words = layout_.rows * bits / kWordBits;  // of a line over all rows
  const int64_t mask = (int64_t{1} << bits) - 1;
  std::vector<float> scales(static_cast<std::size_t>(layout_.n_groups));
  std::vector<float> zeros(static_cast<std::size_t>(layout_.n_groups));
  for (int64_t group = 0; group < layout_.n_groups; ++group) {
    const Words line{part(1).data, group * line_words, 1};
    const int64_t zero = (line.bits_at(place * bits, bits) + layout_.zero_offset) & mask;
    zeros[static_cast<std::size_t>(group)] = static_cast<float>(zero);
    scales[static_cast<std::size_t>(group)] = scales_.at(group * layout_.rows + row);
  }
  const Words column{part(0).data, row, layout_.rows};  // GPTQ: the words of this row
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = first + i;
    const uint32_t code = layout_.is_awq ? Words{part(0).data, k * line_words, 1}.bits_at(place * bits, bits)
                                         : column.bits_at(k * bits, bits);
    const auto group = static_cast<std::size_t>(layout_.groups[static_cast<std::size_t>(k)]);
    to[i] = (static_cast<float>(code) - zeros[group]) * scales[group];
  }
}

}  // namespace winnow::quantization
