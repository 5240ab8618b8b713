// Numbers of eight bits, FP8 (e4m3fn) or integers, times scales: one for a weight, for each row, or for each block.
#include <algorithm>
#include <cstring>

#include "kernels/packed_rows.h"
#include "model/quantization/formats.h"
#include "model/quantization/values.h"

namespace winnow::quantization {

namespace {

constexpr std::string_view kCompanions[] = {".weight_scale_inv", ".weight_scale"};
constexpr std::string_view kActivations[] = {".input_scale", ".activation_scale", ".input_scale_ub"};

void decode_fp8(const std::byte* row, int64_t first, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = kernels::e4m3_to_float(std::to_integer<uint8_t>(row[first + i]));
}

void decode_int8(const std::byte* row, int64_t first, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(std::to_integer<int8_t>(row[first + i]));
}

class Fp8Values final : public ScaledValues {
 public:
  using ScaledValues::ScaledValues;

  std::optional<kernels::PackedRows> packed_rows() const override {
    return kernels::PackedRows{.cols = cols(), .block_cols = grid().block_cols};
  }
  void pack_row(int64_t row, std::byte* to) const override {
    const int64_t begin_of_scales = row / grid().block_rows * grid().n_cols;
    for (int64_t block = 0; block < grid().n_cols; ++block, to += sizeof(float)) {
      const float scale = grid().at(begin_of_scales + block);
      std::memcpy(to, &scale, sizeof scale);
    }
    std::copy_n(part(0).data + row * cols(), cols(), to);
  }
};

template <class Values>
kernels::HostTensor open(Parts& parts, Weights& weights, std::string_view type, Decode decode) {
  // Both names are multipliers, whatever "inv" says.
  const kernels::HostTensor& scales = parts.need_one(kCompanions[0], kCompanions[1]);
  const kernels::HostTensor& codes = parts.codes();
  require_type(codes, {type});
  require_matrix(codes);
  const int64_t cols = codes.cols();
  ScaleGrid grid = make_grid(scales, codes.rows(), cols, weights);
  return computed(codes, codes.shape,
                  std::make_shared<Values>(std::vector{codes, scales}, cols, cols, decode, std::move(grid)));
}

kernels::HostTensor open_fp8(Parts& parts, Weights& weights) {
  return open<Fp8Values>(parts, weights, "F8_E4M3", decode_fp8);
}
kernels::HostTensor open_int8(Parts& parts, Weights& weights) {
  return open<ScaledValues>(parts, weights, "I8", decode_int8);
}

}  // namespace

const Format kFp8 = {.name = "fp8",
                     .codes = ".weight",
                     .values = ".weight",
                     .companions = kCompanions,
                     .activations = kActivations,
                     .open = open_fp8};
const Format kInt8 = {.name = "int8",
                      .codes = ".weight",
                      .values = ".weight",
                      .companions = kCompanions,
                      .activations = kActivations,
                      .open = open_int8};

}  // namespace winnow::quantization
