// AWQ, version gemm: 4 bits, packed along the out features with eight in a word in the order 0, 2, 4, 6, 1, 3, 5, 7.
#include "model/quantization/formats.h"
#include "model/quantization/transposed.h"
#include "model/quantization/words.h"

namespace winnow::quantization {

namespace {

constexpr std::string_view kCompanions[] = {".qzeros", ".scales"};
constexpr int64_t kInWord = 8;

kernels::HostTensor open(Parts& parts, Weights& weights) {
  const kernels::HostTensor& codes = parts.codes();
  const kernels::HostTensor& zeros = parts.need(".qzeros");
  const kernels::HostTensor& scales = parts.need(".scales");
  require_type(codes, {"I32"});
  require_type(zeros, {"I32"});
  require_type(scales, {"F16", "BF16", "F32"});
  require_matrix(codes);
  TransposedValues::Layout layout;
  layout.rows = codes.cols() * kInWord;
  layout.cols = codes.rows();
  layout.is_awq = true;
  const int64_t group_cols =
      weights.block_cols == Weights::kAll ? std::max<int64_t>(layout.cols, 1) : weights.block_cols;
  layout.n_groups = ceil_div(layout.cols, group_cols);
  require_shape(scales, {layout.n_groups, layout.rows});
  require_shape(zeros, {layout.n_groups, codes.cols()});
  layout.groups = TransposedValues::groups_in_order(layout.cols, group_cols);
  const std::vector<int64_t> shape = {layout.rows, layout.cols};
  return computed(codes, shape,
                  std::make_shared<TransposedValues>(std::vector{codes, zeros, scales}, Scales(scales), layout));
}

}  // namespace

const Format kAwq = {.name = "awq int4",
                     .codes = ".qweight",
                     .values = ".weight",
                     .companions = kCompanions,
                     .activations = {},
                     .open = open};

}  // namespace winnow::quantization
