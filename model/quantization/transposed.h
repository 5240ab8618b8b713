// AWQ and GPTQ: integers with zero points, stored with the in features first.
#pragma once

#include <cstdint>
#include <vector>

#include "model/quantization/values.h"

namespace winnow::quantization {

// W[n, k] = (q[k, n] - z[g(k), n]) * s[g(k), n].
class TransposedValues : public RowValues {
 public:
  struct Layout {
    int64_t rows = 0;  // of the weight: out features, n
    int64_t cols = 0;  // in features, k
    int64_t bits = 4;
    int64_t n_groups = 1;
    std::vector<int32_t> groups;  // (cols): the group of each column
    bool is_awq = false;      // words hold 8 rows in AWQ's order, else consecutive columns; those of zeros are alike
    int64_t zero_offset = 0;  // is added to a stored zero point
  };

  // Groups of so many columns, one after another.
  static std::vector<int32_t> groups_in_order(int64_t n_cols, int64_t group_cols);

  // stored: codes, zero points, scales (n_groups, rows).
  TransposedValues(std::vector<kernels::HostTensor> stored, Scales scales, Layout layout)
      : RowValues(std::move(stored), layout.cols), scales_(std::move(scales)), layout_(std::move(layout)) {
    find_blocks();
  }

  std::optional<kernels::PackedRows> packed_rows() const override;
  void pack_row(int64_t row, std::byte* to) const override;

 protected:
  void read_row(int64_t row, int64_t first, int64_t n, float* to) const override;

 private:
  // The place of a row among the numbers of a line of words.
  int64_t place_of(int64_t row) const;
  uint32_t code_at(int64_t row, int64_t col) const;
  float zero_of(int64_t row, int64_t group) const;
  void find_blocks();

  Scales scales_;
  Layout layout_;
  int64_t block_cols_ = 0;  // columns of a group where groups lie one after another; 0: they do not
};

}  // namespace winnow::quantization
