// compressed-tensors' packed integers: a row is one stream of bits in little-endian words, a number q + 2^(bits - 1).
#include <algorithm>
#include <cstring>

#include "model/quantization/formats.h"
#include "model/quantization/values.h"
#include "model/quantization/words.h"

namespace winnow::quantization {

namespace {

// What a code of four bits is above its number.
constexpr float kHalf = 8.F;

constexpr std::string_view kCompanions[] = {".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx"};

class PackedValues : public RowValues {
 public:
  struct Layout {
    int64_t bits = 4;
    int64_t row_words = 0;
    ScaleGrid grid;
    kernels::HostTensor zeros;    // (ceil(rows * bits / 32), groups), packed along the rows; no data: all 0
    std::vector<int32_t> groups;  // (cols): the group of each column; empty: one after another
  };

  PackedValues(std::vector<kernels::HostTensor> stored, int64_t cols, Layout layout)
      : RowValues(std::move(stored), cols), layout_(std::move(layout)) {}

  std::optional<kernels::PackedRows> packed_rows() const override {
    if (layout_.bits != 4 || !layout_.groups.empty()) return std::nullopt;
    return kernels::PackedRows{.cols = cols(), .block_cols = layout_.grid.block_cols, .code_bits = 4};
  }
  void pack_row(int64_t row, std::byte* to) const override {
    const kernels::PackedRows rows = *packed_rows();
    const int64_t begin_of_scales = row / layout_.grid.block_rows * layout_.grid.n_cols;
    for (int64_t group = 0; group < rows.n_scales(); ++group) {
      put_scale(rows, group, layout_.grid.at(begin_of_scales + group), zero_of(row, group) + kHalf, to);
    }
    std::memcpy(to + rows.codes_at(), part(0).data + row * layout_.row_words * kWordBits / 8,
                static_cast<std::size_t>(rows.code_bytes()));
  }

 protected:
  void read_row(int64_t row, int64_t first, int64_t n, float* to) const override {
    const Words codes{part(0).data, row * layout_.row_words, 1};
    const int64_t block = layout_.grid.block_cols;
    for (int64_t at = 0; at < n;) {
      const int64_t col = first + at;
      const bool is_ordered = !layout_.groups.empty();
      const int64_t group = is_ordered ? layout_.groups[static_cast<std::size_t>(col)] : col / block;
      const int64_t end = is_ordered ? at + 1 : std::min(n, (group + 1) * block - first);
      const float scale = layout_.grid.at(row / layout_.grid.block_rows * layout_.grid.n_cols + group);
      const float zero = zero_of(row, group);
      for (; at < end; ++at) to[at] = (number(codes, first + at) - zero) * scale;
    }
  }

 private:
  float number(const Words& words, int64_t i) const {
    return static_cast<float>(words.bits_at(i * layout_.bits, layout_.bits)) -
           static_cast<float>(int64_t{1} << (layout_.bits - 1));
  }
  float zero_of(int64_t row, int64_t group) const {
    if (layout_.zeros.data == nullptr) return 0.F;
    return number(Words{layout_.zeros.data, group, layout_.grid.n_cols}, row);
  }

  Layout layout_;
};

// The shape of the weight, which the packed words leave open.
std::vector<int64_t> read_shape(const kernels::HostTensor& tensor, const kernels::HostTensor& codes, int64_t bits) {
  require_type(tensor, {"I64", "I32"});
  require_shape(tensor, {2});
  const std::vector<int64_t> shape = {integer_at(tensor, 0), integer_at(tensor, 1)};
  constexpr int64_t kMost = int64_t{1} << 40;
  const bool fits = shape[0] == codes.rows() && shape[1] > 0 && shape[1] <= kMost &&
                    ceil_div(shape[1] * bits, kWordBits) == codes.cols();
  if (!fits) {
    refuse(codes,
           "shape [out features, in features * " + std::to_string(bits) + " / 32] for the " + shape_text(shape) +
               " of its weight_shape",
           shape_text(codes.shape));
  }
  return shape;
}

kernels::HostTensor open(Parts& parts, Weights& weights) {
  const kernels::HostTensor& codes = parts.codes();
  const kernels::HostTensor& scales = parts.need(".weight_scale");
  require_type(codes, {"I32"});
  require_matrix(codes);
  const std::vector<int64_t> shape = read_shape(parts.need(".weight_shape"), codes, weights.bits);
  PackedValues::Layout layout;
  layout.bits = weights.bits;
  layout.row_words = codes.cols();
  require_type(scales, {"F32", "BF16", "F16"});
  layout.grid = make_grid(scales, shape[0], shape[1], weights);
  std::vector<kernels::HostTensor> stored = {codes, scales};
  if (weights.has_zero_points) {
    layout.zeros = parts.need(".weight_zero_point");
    require_type(layout.zeros, {"I32"});
    require_shape(layout.zeros, {ceil_div(shape[0] * weights.bits, kWordBits), layout.grid.n_cols});
    stored.push_back(layout.zeros);
  }
  if (const kernels::HostTensor* groups = parts.find(".weight_g_idx")) {
    layout.groups = read_groups(*groups, shape[1], layout.grid.n_cols);
    stored.push_back(*groups);
  }
  return computed(codes, shape, std::make_shared<PackedValues>(std::move(stored), shape[1], std::move(layout)));
}

constexpr std::string_view kActivations[] = {".input_scale", ".input_zero_point", ".input_global_scale"};

}  // namespace

const Format kPackedInt = {.name = "int",
                           .codes = ".weight_packed",
                           .values = ".weight",
                           .companions = kCompanions,
                           .activations = kActivations,
                           .open = open};

}  // namespace winnow::quantization
