// FP4 numbers (e2m1), two in a byte with the first in the lower half, times the scales of small groups of a row:
// MXFP4 with exponents as scales, NVFP4 with FP8 scales and one more scale for the whole weight.
#include "model/quantization/formats.h"
#include "model/quantization/values.h"

namespace winnow::quantization {

namespace {

constexpr float kValues[16] = {0.F,  0.5F,  1.F,  1.5F,  2.F,  3.F,  4.F,  6.F,
                               -0.F, -0.5F, -1.F, -1.5F, -2.F, -3.F, -4.F, -6.F};
constexpr int64_t kBlockOfOss = 32;  // numbers in one of gpt-oss's blocks of 16 bytes

void decode(const std::byte* row, int64_t first, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    const auto two = std::to_integer<uint32_t>(row[(first + i) / 2]);
    to[i] = kValues[(first + i) % 2 == 0 ? two & 0xFU : two >> 4];
  }
}

kernels::HostTensor values_of(const kernels::HostTensor& codes, const std::vector<kernels::HostTensor>& scales,
                              std::vector<int64_t> shape, ScaleGrid grid) {
  std::vector<kernels::HostTensor> stored = {codes};
  stored.insert(stored.end(), scales.begin(), scales.end());
  const int64_t cols = shape.back();
  return computed(codes, std::move(shape),
                  std::make_shared<ScaledValues>(std::move(stored), cols, cols / 2, decode, std::move(grid)));
}

void require_bytes(const kernels::HostTensor& codes) {
  require_type(codes, {"U8"});
  require_matrix(codes);
}

kernels::HostTensor open_mxfp4(Parts& parts, Weights& weights) {
  const kernels::HostTensor& codes = parts.codes();
  const kernels::HostTensor& scales = parts.need(".weight_scale");
  require_bytes(codes);
  require_type(scales, {"U8", "F8_E8M0"});
  const int64_t cols = 2 * codes.cols();
  return values_of(codes, {scales}, {codes.rows(), cols}, make_grid(scales, codes.rows(), cols, weights));
}

// (experts, out features, groups, 16 bytes) with scales (experts, out features, groups); the values are (experts, out
// features, in features), where an unquantised checkpoint of gpt-oss has the last two the other way round.
kernels::HostTensor open_blocks(Parts& parts, Weights& weights) {
  const kernels::HostTensor& codes = parts.codes();
  kernels::HostTensor scales = parts.need("_scales");
  require_type(codes, {"U8"});
  require_type(scales, {"U8"});
  std::vector<int64_t> shape = codes.shape;
  if (shape.size() < 3 || shape.back() != kBlockOfOss / 2) {
    refuse(codes, "shape [experts, out features, groups, 16]", shape_text(shape));
  }
  shape.pop_back();
  require_shape(scales, shape);
  const int64_t groups = shape.back();
  shape.back() *= kBlockOfOss;
  const int64_t rows = groups == 0 ? 0 : scales.count() / groups;
  scales.shape = {rows, groups};
  return values_of(codes, {scales}, shape, make_grid(scales, rows, shape.back(), weights));
}

// `rule`: ModelOpt stores what the scales are multiplied with, compressed-tensors what they are divided by.
kernels::HostTensor open_nvfp4(Parts& parts, Weights& weights, std::string_view global_name, ScaleGrid::Global rule) {
  const kernels::HostTensor& codes = parts.codes();
  const kernels::HostTensor& scales = parts.need(".weight_scale");
  const kernels::HostTensor& global = parts.need(global_name);
  require_bytes(codes);
  require_type(scales, {"F8_E4M3"});
  require_type(global, {"F32"});
  if (global.count() != 1) refuse(global, "one number", "shape " + shape_text(global.shape));
  const int64_t cols = 2 * codes.cols();
  // A group of tiny numbers may well have a scale of 0 in FP8.
  ScaleGrid grid = make_grid(scales, codes.rows(), cols, weights, Zeros::kAllowed);
  grid.rule = rule;
  grid.global = Scales(global).at(0);
  return values_of(codes, {scales, global}, {codes.rows(), cols}, std::move(grid));
}

kernels::HostTensor open_multiplied(Parts& parts, Weights& weights) {
  return open_nvfp4(parts, weights, ".weight_scale_2", ScaleGrid::Global::kMultiply);
}

kernels::HostTensor open_divided(Parts& parts, Weights& weights) {
  return open_nvfp4(parts, weights, ".weight_global_scale", ScaleGrid::Global::kDivide);
}

constexpr std::string_view kMxfp4Companions[] = {".weight_scale"};
constexpr std::string_view kBlockCompanions[] = {"_scales"};
constexpr std::string_view kModelOptCompanions[] = {".weight_scale", ".weight_scale_2"};
constexpr std::string_view kDividedCompanions[] = {".weight_scale", ".weight_global_scale"};
constexpr std::string_view kActivations[] = {".input_scale", ".input_global_scale"};

}  // namespace

const Format kMxfp4 = {.name = "mxfp4",
                       .codes = ".weight_packed",
                       .values = ".weight",
                       .companions = kMxfp4Companions,
                       .activations = kActivations,
                       .open = open_mxfp4};
const Format kMxfp4Blocks = {.name = "mxfp4",
                             .codes = "_blocks",
                             .values = "",
                             .companions = kBlockCompanions,
                             .activations = {},
                             .open = open_blocks};
const Format kNvfp4ModelOpt = {.name = "nvfp4",
                               .codes = ".weight",
                               .values = ".weight",
                               .companions = kModelOptCompanions,
                               .activations = kActivations,
                               .open = open_multiplied};
const Format kNvfp4 = {.name = "nvfp4",
                       .codes = ".weight_packed",
                       .values = ".weight",
                       .companions = kDividedCompanions,
                       .activations = kActivations,
                       .open = open_divided};

}  // namespace winnow::quantization
