// bitsandbytes' 4 bits: places in a table of 16 numbers, two in a byte with the first in the upper half, times the
// largest magnitude of a block of the flat weight; that may be quantised too, in 8 bits with a table of 256.
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "kernels/convert.h"
#include "model/quantization/formats.h"
#include "model/quantization/values.h"

namespace winnow::quantization {

namespace {

constexpr std::string_view kState = ".weight.quant_state.bitsandbytes__nf4";
constexpr std::string_view kCompanions[] = {".weight.absmax", ".weight.quant_map", ".weight.nested_absmax",
                                            ".weight.nested_quant_map", kState};
constexpr int64_t kMaxState = 1 << 16;  // bytes

std::vector<float> read_table(const kernels::HostTensor& tensor, int64_t n) {
  require_type(tensor, {"F32"});
  require_shape(tensor, {n});
  std::vector<float> table(static_cast<std::size_t>(n));
  kernels::to_float32(tensor.data, tensor.dtype, n, table.data());
  for (const float value : table) {
    if (!std::isfinite(value)) refuse(tensor, "finite numbers", "one that is not");
  }
  return table;
}

// What the quant_state says, JSON in a tensor of bytes.
struct State {
  std::vector<int64_t> shape;
  int64_t block = 64;
  int64_t nested_block = 256;
  float nested_offset = 0.F;

  explicit State(const kernels::HostTensor& tensor) {
    require_type(tensor, {"U8"});
    if (tensor.shape.size() != 1 || tensor.count() > kMaxState) {
      refuse(tensor, "a text of at most 65536 bytes", "shape " + shape_text(tensor.shape));
    }
    const std::string_view text(reinterpret_cast<const char*>(tensor.data), static_cast<std::size_t>(tensor.count()));
    const nlohmann::json object = parse_json(text, tensor.name, JsonDialect::kPython);
    if (!object.is_object()) refuse(tensor, "an object of JSON", shown(object));
    const ConfigFields fields(object, tensor.name);
    const nlohmann::json& found = fields.value("shape");
    const auto is_extent = [](const nlohmann::json& n) {
      return n.is_number_unsigned() && n.get<uint64_t>() > 0 && n.get<uint64_t>() <= uint64_t{ConfigFields::kMaxSize};
    };
    const bool is_pair = found.is_array() && found.size() == 2 && is_extent(found[0]) && is_extent(found[1]);
    if (!is_pair) fields.refuse("shape", "two integers > 0");
    shape = found.get<std::vector<int64_t>>();
    block = fields.size("blocksize", 0);
    nested_block = fields.size("nested_blocksize", nested_block);
    const nlohmann::json& offset = fields.value("nested_offset");
    if (!offset.is_null()) {
      if (!offset.is_number() || !std::isfinite(offset.get<float>())) fields.refuse("nested_offset", "a finite number");
      nested_offset = offset.get<float>();
    }
  }
};

class BlockValues : public RowValues {
 public:
  struct Layout {
    int64_t cols = 0;
    int64_t block = 64;
    std::vector<float> table;  // 16
    Scales largest;            // of each block, where they are not nested
    std::vector<float> nested_table;
    Scales nested_largest;
    int64_t nested_block = 256;
    float nested_offset = 0.F;
  };

  BlockValues(std::vector<kernels::HostTensor> stored, Layout layout)
      : RowValues(std::move(stored), layout.cols), layout_(std::move(layout)) {}

 protected:
  void read_row(int64_t row, int64_t first, int64_t n, float* to) const override {
    const std::byte* codes = part(0).data;
    const int64_t begin = row * cols() + first;
    for (int64_t at = 0; at < n;) {
      const int64_t block = (begin + at) / layout_.block;
      const int64_t end = std::min(n, (block + 1) * layout_.block - begin);
      const float largest = largest_of(block);
      for (; at < end; ++at) {
        const auto two = std::to_integer<std::size_t>(codes[(begin + at) / 2]);
        to[at] = layout_.table[(begin + at) % 2 == 0 ? two >> 4 : two & 0xFU] * largest;
      }
    }
  }

 private:
  float largest_of(int64_t block) const {
    if (layout_.nested_table.empty()) return layout_.largest.at(block);
    const float scaled = layout_.nested_table[std::to_integer<std::size_t>(part(1).data[block])] *
                         layout_.nested_largest.at(block / layout_.nested_block);
    return scaled + layout_.nested_offset;
  }

  Layout layout_;
};

kernels::HostTensor open(Parts& parts, Weights& weights) {
  const kernels::HostTensor& codes = parts.codes();
  const kernels::HostTensor& largest = parts.need(".weight.absmax");
  const State state(parts.need(kState));
  require_type(codes, {"U8"});
  const int64_t n = state.shape[0] * state.shape[1];
  if (codes.count() != ceil_div(n, 2)) {
    refuse(codes,
           std::to_string(ceil_div(n, 2)) + " bytes for the shape " + shape_text(state.shape) + " of its quant_state",
           "shape " + shape_text(codes.shape));
  }
  BlockValues::Layout layout;
  layout.cols = state.shape[1];
  layout.block = weights.block_cols = state.block;
  layout.table = read_table(parts.need(".weight.quant_map"), 16);
  const int64_t n_blocks = ceil_div(n, state.block);
  require_shape(largest, {n_blocks});
  std::vector<kernels::HostTensor> stored = {codes, largest};
  if (weights.is_nested) {
    require_type(largest, {"U8"});
    const kernels::HostTensor& nested = parts.need(".weight.nested_absmax");
    require_type(nested, {"F32"});
    require_shape(nested, {ceil_div(n_blocks, state.nested_block)});
    layout.nested_table = read_table(parts.need(".weight.nested_quant_map"), 256);
    layout.nested_largest = Scales(nested, Zeros::kAllowed);
    layout.nested_block = state.nested_block;
    layout.nested_offset = state.nested_offset;
    stored.push_back(nested);
  } else {
    require_type(largest, {"F32"});
    layout.largest = Scales(largest, Zeros::kAllowed);  // of a block of zeros
  }
  return computed(codes, state.shape, std::make_shared<BlockValues>(std::move(stored), std::move(layout)));
}

}  // namespace

const Format kBitsandbytes = {.name = "bitsandbytes nf4",
                              .codes = ".weight",
                              .values = ".weight",
                              .companions = kCompanions,
                              .activations = {},
                              .open = open};

}  // namespace winnow::quantization
