// GPTQ: integers packed along the in features, lowest first; zero points are packed along the out features, in the
// first version as the number below. With "act order" each column says which group it is in.
#include "model/quantization/formats.h"
#include "model/quantization/transposed.h"
#include "model/quantization/words.h"

namespace winnow::quantization {

namespace {

constexpr std::string_view kCompanions[] = {".qzeros", ".scales", ".g_idx"};

kernels::HostTensor open(Parts& parts, Weights& weights) {
  const kernels::HostTensor& codes = parts.codes();
  const kernels::HostTensor& zeros = parts.need(".qzeros");
  const kernels::HostTensor& scales = parts.need(".scales");
  const kernels::HostTensor* groups = weights.is_ordered ? &parts.need(".g_idx") : parts.find(".g_idx");
  require_type(codes, {"I32"});
  require_type(zeros, {"I32"});
  require_type(scales, {"F16", "BF16", "F32"});
  require_matrix(codes);
  const int64_t in_word = kWordBits / weights.bits;
  TransposedValues::Layout layout;
  layout.rows = codes.cols();
  layout.cols = codes.rows() * in_word;
  layout.bits = weights.bits;
  layout.zero_offset = weights.zeros_less_one ? 1 : 0;
  const int64_t group_cols =
      weights.block_cols == Weights::kAll ? std::max<int64_t>(layout.cols, 1) : weights.block_cols;
  layout.n_groups = ceil_div(layout.cols, group_cols);
  require_shape(scales, {layout.n_groups, layout.rows});
  if (layout.rows % in_word != 0) {
    refuse(codes, "a multiple of " + std::to_string(in_word) + " out features", shape_text(codes.shape));
  }
  require_shape(zeros, {layout.n_groups, layout.rows / in_word});
  std::vector<kernels::HostTensor> stored = {codes, zeros, scales};
  if (groups != nullptr) stored.push_back(*groups);
  layout.groups = groups != nullptr ? read_groups(*groups, layout.cols, layout.n_groups)
                                    : TransposedValues::groups_in_order(layout.cols, group_cols);
  const std::vector<int64_t> shape = {layout.rows, layout.cols};
  return computed(codes, shape, std::make_shared<TransposedValues>(std::move(stored), Scales(scales), layout));
}

}  // namespace

const Format kGptq = {.name = "gptq int",
                      .codes = ".qweight",
                      .values = ".weight",
                      .companions = kCompanions,
                      .activations = {},
                      .open = open};

}  // namespace winnow::quantization
