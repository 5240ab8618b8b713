// What winnow reads from each weight format, bit for bit as the programs dequantise it that the goldens name.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "kernels/convert.h"
#include "kernels/cpu/cpu.h"
#include "model/checkpoint_check.h"
#include "model/quantization/values.h"
#include "model/weight_parts.h"
#include "model/weights.h"
#include "tests/model/quantization/quantized_files.h"

namespace winnow::model {
namespace {

using testing::quantized_path;
using testing::read_json;

constexpr const char* kNames[] = {
    "fp8_block",      "fp8_ceil_block", "fp8_tensor",    "fp8_fbgemm",   "fp8_modelopt",   "fp8_channel",
    "int8_channel",   "mxfp4_blocks",   "mxfp4_gpt_oss", "mxfp4_packed", "int4_packed",    "int4_zero_points",
    "nvfp4_modelopt", "nvfp4_packed",   "awq",           "gptq",         "gptq_act_order", "nf4",
    "nf4_nested"};

std::vector<float> values_of(const kernels::HostTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.count()));
  kernels::read_float32(tensor, 0, tensor.count(), values.data());
  return values;
}

// As a GPU computes it from packed rows.
std::vector<uint16_t> unpacked_bf16(const kernels::HostTensor& tensor) {
  const kernels::PackedRows rows = *tensor.values->packed_rows();
  std::vector<float> packed(static_cast<std::size_t>(rows.row_bytes()) / sizeof(float));  // aligned
  auto* const bytes = reinterpret_cast<std::byte*>(packed.data());
  std::vector<uint16_t> values;
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    tensor.values->pack_row(row, bytes);
    for (int64_t col = 0; col < rows.cols; ++col) {
      values.push_back(kernels::float_to_bfloat16(kernels::packed_value(rows, bytes, col)));
    }
  }
  return values;
}

std::vector<uint16_t> rounded(const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  std::ranges::transform(values, bits.begin(), kernels::float_to_bfloat16);
  return bits;
}

template <class T>
std::string sha256_of_values(const std::vector<T>& values) {
  return sha256_of(std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
}

class WeightFormat : public ::testing::TestWithParam<const char*> {
 protected:
  nlohmann::json golden_ = read_json(quantized_path(std::string(GetParam()) + ".json"));
  ModelConfig config_ = read_config(quantized_path(GetParam()));
  Checkpoint checkpoint_ = Checkpoint(quantized_path(GetParam()), config_.quantization);
};

TEST_P(WeightFormat, IsReadBitForBit) {
  ASSERT_GE(golden_.at("values").size(), 1U);
  for (const auto& [name, expected] : golden_.at("values").items()) {
    ASSERT_TRUE(checkpoint_.contains(name)) << name;
    const std::vector<float> values = values_of(checkpoint_.tensors().at(name));
    EXPECT_EQ(sha256_of_values(values), expected.at("fp32").get<std::string>()) << name;
    EXPECT_EQ(sha256_of_values(rounded(values)), expected.at("bf16").get<std::string>()) << name;
  }
}

TEST_P(WeightFormat, IsNamedAndLeavesNoPartBehind) {
  const auto n_values = static_cast<int64_t>(golden_.at("values").size());
  const std::map<std::string, int64_t> expected = {{golden_.at("format").get<std::string>(), n_values}};
  EXPECT_EQ(checkpoint_.weight_formats(), expected);
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    EXPECT_EQ(golden_.at("values").contains(name), tensor.values != nullptr) << name;
  }
}

TEST_P(WeightFormat, AnyRangeIsAPieceOfTheWhole) {
  for (const auto& [name, unused] : golden_.at("values").items()) {
    const kernels::HostTensor& tensor = checkpoint_.tensors().at(name);
    const std::vector<float> whole = values_of(tensor);
    const int64_t n = tensor.count();
    for (const int64_t first : {int64_t{0}, int64_t{1}, int64_t{31}, n / 2 - 3, n - 1}) {
      for (const int64_t count : {int64_t{1}, int64_t{2}, int64_t{37}, int64_t{200}}) {
        if (first + count > n) continue;
        std::vector<float> piece(static_cast<std::size_t>(count));
        kernels::read_float32(tensor, first, count, piece.data());
        EXPECT_EQ(std::memcmp(piece.data(), whole.data() + first, piece.size() * sizeof(float)), 0)
            << name << " from " << first << ", " << count;
      }
    }
  }
}

TEST_P(WeightFormat, IsPackedWhereItIsFp8OrFourBitsInBlocks) {
  const std::string format = GetParam();
  const bool is_packed = format.starts_with("fp8") || format.starts_with("int4") || format == "awq" || format == "gptq";
  for (const auto& [name, expected] : golden_.at("values").items()) {
    const kernels::HostTensor& tensor = checkpoint_.tensors().at(name);
    ASSERT_EQ(tensor.values->packed_rows().has_value(), is_packed) << name;
    if (!is_packed) continue;
    EXPECT_EQ(sha256_of_values(unpacked_bf16(tensor)), expected.at("bf16").get<std::string>()) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, WeightFormat, ::testing::ValuesIn(kNames),
                         [](const auto& tested) { return std::string(tested.param); });

TEST(WeightFormats, TakeTheMemoryThatIsPredicted) {
  for (const char* name : {"fp8_block", "int4_packed", "gptq", "nf4_nested"}) {
    const ModelConfig config = read_config(quantized_path(name));
    const Checkpoint checkpoint(quantized_path(name), config.quantization);
    const auto ops = cpu::make_cpu_backend({.n_threads = 2});
    const int64_t before = ops->device().allocated_bytes();
    ModelWeights weights(config, checkpoint, *ops);
    EXPECT_EQ(ops->device().allocated_bytes() - before, ModelWeights::predicted_bytes(config, checkpoint, *ops))
        << name;
    const std::vector<float> expected = values_of(checkpoint.tensors().at("model.layers.1.mlp.up_proj.weight"));
    const kernels::Matrix& gate_up = weights.layer(1).gate_up;
    const auto* up = static_cast<const float*>(gate_up.data) + config.ffn * config.hidden;
    EXPECT_EQ(std::memcmp(up, expected.data(), expected.size() * sizeof(float)), 0) << name;
    EXPECT_EQ(checkpoint.dtype(), kernels::DType::kBf16) << name;
  }
}

// The scales of keys and values, by the names of those who write them.
TEST(WeightFormats, ScalesOfKeysAndValuesAreNoWeights) {
  struct Cache {
    const char* golden;
    nlohmann::json asked_for;
    std::vector<std::string> scales;
  };
  const nlohmann::json scheme = {{"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}, {"dynamic", false}};
  for (const Cache& cache :
       {Cache{"fp8_channel", {{"kv_cache_scheme", scheme}}, {"k_scale", "v_scale"}},
        Cache{"nvfp4_modelopt", {{"kv_cache_quant_algo", "FP8"}}, {"k_proj.k_scale", "v_proj.v_scale"}},
        Cache{"fp8_tensor", {{"kv_cache_scheme", scheme}}, {"k_proj.output_scale"}}}) {
    testing::QuantizedFiles files(cache.golden);
    for (const std::string& scale : cache.scales) {
      files.tensors["model.layers.0.self_attn." + scale] = {"F32", {1}, std::string("\0\0\0\x3f", 4)};  // 0.5
    }
    const testing::TempDir directory;
    files.write(directory);
    ModelConfig config = read_config(directory.path());
    EXPECT_EQ(config.quantization.cache_key, "");
    testing::expect_error(ExitCode::kBadData, {cache.scales.front(), "would leave it out"},
                          [&] { require_model(config, Checkpoint(directory.path(), config.quantization)); });
    files.quantization().merge_patch(cache.asked_for);
    files.write(directory);
    config = read_config(directory.path());
    EXPECT_EQ(config.quantization.cache_key, cache.asked_for.items().begin().key());
    const Checkpoint checkpoint(directory.path(), config.quantization);
    require_model(config, checkpoint);
    const std::vector<quantization::KvScales> scales = checkpoint.kv_scales(config.n_layers);
    ASSERT_EQ(static_cast<int64_t>(scales.size()), config.n_layers) << cache.golden;
    EXPECT_EQ(scales[0].key, 0.5F) << cache.golden;
    EXPECT_EQ(scales[0].value, cache.scales.size() == 2 ? 0.5F : 1.0F) << cache.golden;
    for (std::size_t layer = 1; layer < scales.size(); ++layer) EXPECT_EQ(scales[layer].key, 1.0F);
    const ModelConfig plain_config = read_config(quantized_path(cache.golden));
    const Checkpoint plain(quantized_path(cache.golden), plain_config.quantization);
    ASSERT_EQ(checkpoint.tensors().size(), plain.tensors().size()) << cache.golden;
    for (const auto& [name, tensor] : plain.tensors()) {
      EXPECT_EQ(values_of(checkpoint.tensors().at(name)), values_of(tensor)) << name;
    }
    EXPECT_TRUE(plain.kv_scales(config.n_layers).empty());
    // One for each head is another rounding.
    files.tensors["model.layers.0.self_attn." + cache.scales.front()] = {"F32", {2}, std::string(8, '\1')};
    files.write(directory);
    const Checkpoint by_head(directory.path(), config.quantization);
    testing::expect_error(ExitCode::kBadData, {cache.scales.front(), "one scale", "found 2"},
                          [&] { by_head.kv_scales(config.n_layers); });
  }
}

TEST(WeightFormats, RowsInAnotherOrderArePackedInIt) {
  const ModelConfig config = read_config(quantized_path("fp8_ceil_block"));
  const Checkpoint checkpoint(quantized_path("fp8_ceil_block"), config.quantization);
  const kernels::HostTensor& whole = checkpoint.tensors().at("model.layers.0.self_attn.q_proj.weight");
  std::vector<int64_t> order(static_cast<std::size_t>(config.heads.head_dim));
  std::iota(order.rbegin(), order.rend(), int64_t{0});
  const int64_t head_dim = config.heads.head_dim;
  const PartSpec part{.tensor = {"model.layers.0.self_attn.q_proj.weight", whole.shape},
                      .first_row = head_dim,
                      .n_rows = whole.rows() - head_dim,
                      .turns = true};
  const kernels::HostTensor rows = part_of(checkpoint, part, order);
  ASSERT_TRUE(rows.values->packed_rows().has_value());
  EXPECT_EQ(unpacked_bf16(rows), rounded(values_of(rows)));
  // The first row is the last of the second head.
  const std::vector<float> all = values_of(whole);
  const auto first = all.begin() + (2 * head_dim - 1) * whole.cols();
  EXPECT_TRUE(std::equal(first, first + whole.cols(), values_of(rows).begin()));
}

TEST(WeightFormats, NumbersOfEightBits) {
  EXPECT_EQ(kernels::e4m3_to_float(0x00), 0.F);
  EXPECT_EQ(kernels::e4m3_to_float(0x01), 0x1p-9F);
  EXPECT_EQ(kernels::e4m3_to_float(0x08), 0x1p-6F);
  EXPECT_EQ(kernels::e4m3_to_float(0x38), 1.F);
  EXPECT_EQ(kernels::e4m3_to_float(0x7E), 448.F);
  EXPECT_EQ(kernels::e4m3_to_float(0xB9), -1.125F);
  EXPECT_TRUE(std::isnan(kernels::e4m3_to_float(0x7F)));
  EXPECT_TRUE(std::isnan(kernels::e4m3_to_float(0xFF)));
  EXPECT_TRUE(std::signbit(kernels::e4m3_to_float(0x80)));
  EXPECT_EQ(quantization::e8m0_to_float(0), 0x1p-127F);
  EXPECT_EQ(quantization::e8m0_to_float(127), 1.F);
  EXPECT_EQ(quantization::e8m0_to_float(254), 0x1p127F);
  EXPECT_TRUE(std::isnan(quantization::e8m0_to_float(255)));
}

}  // namespace
}  // namespace winnow::model
