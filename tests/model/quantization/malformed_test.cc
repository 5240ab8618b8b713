// Quantised checkpoints that are damaged, or say what they are not: one line each, with the tensor and its file.

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "model/checkpoint_check.h"
#include "tests/model/quantization/quantized_files.h"

namespace winnow::model {
namespace {

using testing::expect_error;
using testing::QuantizedFiles;
using testing::TempDir;

const std::string kUp = "model.layers.0.mlp.up_proj";

struct Damage {
  const char* what;
  const char* golden;
  std::function<void(QuantizedFiles&)> apply;
  std::vector<std::string> message;
};

template <class T>
void put(QuantizedFiles& files, const std::string& tensor, std::size_t i, T value) {
  std::memcpy(files.tensors.at(tensor).bytes.data() + i * sizeof value, &value, sizeof value);
}

std::function<void(QuantizedFiles&)> without(const std::string& ending) {
  return [ending](QuantizedFiles& f) { ASSERT_EQ(f.tensors.erase(kUp + ending), 1U); };
}

std::function<void(QuantizedFiles&)> with_dtype(const std::string& ending, const std::string& dtype) {
  return [=](QuantizedFiles& f) { f.tensors.at(kUp + ending).dtype = dtype; };
}

// The same bytes in another shape.
std::function<void(QuantizedFiles&)> with_shape(const std::string& ending, const std::vector<int64_t>& shape) {
  return [=](QuantizedFiles& f) { f.tensors.at(kUp + ending).shape = shape; };
}

// A tensor of zeros.
std::function<void(QuantizedFiles&)> with_zeros(const std::string& ending, const std::string& dtype,
                                                const std::vector<int64_t>& shape, std::size_t n_bytes) {
  return [=](QuantizedFiles& f) { f.tensors[kUp + ending] = {dtype, shape, std::string(n_bytes, '\0')}; };
}

template <class T>
std::function<void(QuantizedFiles&)> with_value(const std::string& ending, std::size_t i, T value) {
  return [=](QuantizedFiles& f) { put(f, kUp + ending, i, value); };
}

// up_proj is (96, 64): 3 x 2 blocks of 32 x 32, 2 groups of 32 or 4 of 16 in a row.
const Damage kDamages[] = {
    {"MissingScale",
     "fp8_block",
     without(".weight_scale_inv"),
     {kUp + ".weight\"", "expected tensor", ".weight_scale_inv", "found none"}},
    {"ScaleWithoutWeight", "fp8_block", without(".weight"), {kUp + ".weight_scale_inv\"", kUp + ".weight\" beside it"}},
    {"BothScales",
     "fp8_block",
     with_zeros(".weight_scale", "F32", {3, 2}, 24),
     {".weight_scale\"", "one of both scales"}},
    {"GridOfAnotherShape",
     "fp8_block",
     with_shape(".weight_scale_inv", {2, 3}),
     {".weight_scale_inv\"", "expected shape [3,2]", "found [2,3]"}},
    {"GridRoundedDown",
     "fp8_ceil_block",
     with_zeros(".weight_scale_inv", "F8_E8M0", {2, 1}, 2),
     {".weight_scale_inv\"", "expected shape [3,2]", "found [2,1]"}},
    {"OneScaleForBlocks",
     "fp8_block",
     with_zeros(".weight_scale_inv", "F32", {1}, 4),
     {"expected shape [3,2]", "found [1]"}},
    {"OtherFp8", "fp8_block", with_dtype(".weight", "F8_E5M2"), {kUp + ".weight\"", "dtype F8_E4M3", "found F8_E5M2"}},
    {"PlainWeightWithScale",
     "fp8_block",
     with_zeros(".weight", "BF16", {96, 64}, 2 * 96 * 64),
     {kUp + ".weight\"", "dtype F8_E4M3", "found BF16"}},
    {"ScaleOfIntegers", "fp8_block", with_dtype(".weight_scale_inv", "I32"), {"dtype F32, BF16", "found I32"}},
    {"ZeroScale",
     "fp8_block",
     with_value(".weight_scale_inv", 4, 0.F),
     {".weight_scale_inv\"", "finite and not 0", "0 as element 4 of 6"}},
    {"NanScale", "fp8_block", with_value(".weight_scale_inv", 1, 0x7FC00000U), {"NaN as element 1 of 6"}},
    {"InfiniteScale", "fp8_block", with_value(".weight_scale_inv", 0, 0x7F800000U), {"infinity as element 0 of 6"}},
    {"NanExponent", "fp8_ceil_block", with_value<uint8_t>(".weight_scale_inv", 5, 255), {"NaN as element 5 of 6"}},
    {"SurplusTensor",
     "fp8_block",
     with_zeros(".weight_zero_point", "I32", {3, 2}, 24),
     {".weight_zero_point\"", "winnow would leave it out"}},
    {"QuantisedButListedAsPlain",
     "fp8_block",
     [](QuantizedFiles& f) { f.quantization()["modules_to_not_convert"] = {kUp}; },
     {kUp, "modules_to_not_convert", "found quantised ones"}},
    {"ChannelScaleOfAnotherLength",
     "fp8_channel",
     with_zeros(".weight_scale", "BF16", {64, 1}, 128),
     {"expected shape [96,1]", "found [64,1]"}},
    {"WidthOfPackedIntegers",
     "int4_packed",
     with_value<int64_t>(".weight_shape", 1, 72),
     {kUp + ".weight_packed\"", "weight_shape", "found [96,8]"}},
    {"HugeShape", "int4_packed", with_value<int64_t>(".weight_shape", 1, int64_t{1} << 62), {".weight_packed\""}},
    {"NegativeShape", "int4_packed", with_value<int64_t>(".weight_shape", 1, -64), {".weight_packed\""}},
    {"MissingShape", "int4_packed", without(".weight_shape"), {".weight_shape", "found none"}},
    {"MissingZeroPoints", "int4_zero_points", without(".weight_zero_point"), {".weight_zero_point", "found none"}},
    {"GroupOfPackedIntegers", "int4_packed", with_zeros(".weight_g_idx", "I32", {64}, 4 * 64), {}},
    {"GroupOutOfRange",
     "int4_packed",
     [](QuantizedFiles& f) {
       f.tensors[kUp + ".weight_g_idx"] = {"I32", {64}, std::string(4 * 64, '\0')};
       put<int32_t>(f, kUp + ".weight_g_idx", 63, 2);
     },
     {".weight_g_idx\"", "groups from 0 to 1", "2 for column 63"}},
    {"MissingGlobalScale", "nvfp4_packed", without(".weight_global_scale"), {".weight_global_scale", "found none"}},
    {"ZeroGlobalScale",
     "nvfp4_packed",
     with_value(".weight_global_scale", 0, 0.F),
     {".weight_global_scale\"", "0 as element 0 of 1"}},
    {"NanGroupScale",
     "nvfp4_modelopt",
     [](QuantizedFiles& f) { put<uint8_t>(f, "model.layers.0.mlp.up_proj.weight_scale", 7, 0x7F); },
     {".weight_scale\"", "NaN as element 7"}},
    {"ManyGlobalScales",
     "nvfp4_modelopt",
     with_zeros(".weight_scale_2", "F32", {2}, 8),
     {".weight_scale_2\"", "one number"}},
    {"GroupsOfMxfp4",
     "mxfp4_packed",
     with_zeros(".weight_scale", "U8", {96, 4}, 384),
     {"expected shape [96,2]", "found [96,4]"}},
    {"BiasOfZeros", "gptq", with_zeros(".bias", "F16", {96}, 2 * 96), {}},
    {"BiasOfOthers",
     "gptq",
     [](QuantizedFiles& f) {
       f.tensors[kUp + ".bias"] = {"F16", {96}, std::string(2 * 96, '\0')};
       put<uint16_t>(f, kUp + ".bias", 95, 1);
     },
     {".bias\"", "winnow would leave it out"}},
    {"MissingAwqZeros", "awq", without(".qzeros"), {kUp + ".qzeros\"", "found none"}},
    {"AwqGroups", "awq", with_shape(".scales", {1, 192}), {".scales\"", "expected shape [2,96]", "found [1,192]"}},
    {"GptqOrderWithoutIndex", "gptq_act_order", without(".g_idx"), {kUp + ".g_idx\"", "found none"}},
    {"GptqIndexOutOfRange", "gptq_act_order", with_value<int32_t>(".g_idx", 3, -1), {".g_idx\"", "-1 for column 3"}},
    {"GptqIndexOfAnotherLength", "gptq_act_order", with_shape(".g_idx", {2, 32}), {"expected shape [64]"}},
    {"GptqZeroScale", "gptq", with_value<uint16_t>(".scales", 9, 0x8000), {".scales\"", "0 as element 9"}},
    {"Nf4WithoutMap", "nf4", without(".weight.quant_map"), {".weight.quant_map", "found none"}},
    {"Nf4WithoutState", "nf4", without(".weight.quant_state.bitsandbytes__nf4"), {"quant_state", "found none"}},
    {"Nf4StateIsNoJson",
     "nf4",
     with_value<uint8_t>(".weight.quant_state.bitsandbytes__nf4", 0, '['),
     {"quant_state.bitsandbytes__nf4\""}},
    {"Nf4BlocksOfAnotherSize",
     "nf4",
     with_shape(".weight.absmax", {48, 2}),
     {".weight.absmax\"", "expected shape [96]"}},
    {"Nf4NestedWithoutScales", "nf4_nested", without(".weight.nested_absmax"), {".weight.nested_absmax", "found none"}},
};

class Malformed : public ::testing::TestWithParam<Damage> {};

TEST_P(Malformed, IsOneLine) {
  const Damage& damage = GetParam();
  QuantizedFiles files(damage.golden);
  damage.apply(files);
  const TempDir directory;
  files.write(directory);
  const ModelConfig config = read_config(directory.path());
  const Checkpoint checkpoint(directory.path(), config.quantization);
  if (damage.message.empty()) {
    require_model(config, checkpoint);
    return;
  }
  EXPECT_EQ(find_faults(config, checkpoint, 9).count, 1) << find_faults(config, checkpoint, 9).lines.front();
  std::vector<std::string> parts = damage.message;
  parts.emplace_back((directory.path() / "model.safetensors").string());
  expect_error(ExitCode::kBadData, parts, [&] { require_model(config, checkpoint); });
}

INSTANTIATE_TEST_SUITE_P(Quantized, Malformed, ::testing::ValuesIn(kDamages),
                         [](const auto& tested) { return std::string(tested.param.what); });

TEST(QuantizedCheckpoint, OnlyPlainWeightsContradictTheConfig) {
  QuantizedFiles files("fp8_block");
  for (auto& [name, tensor] : files.tensors) {
    if (tensor.dtype == "F8_E4M3") tensor = {"BF16", tensor.shape, tensor.bytes + tensor.bytes};
  }
  std::erase_if(files.tensors, [](const auto& entry) { return entry.first.ends_with("_scale_inv"); });
  const TempDir directory;
  files.write(directory);
  const ModelConfig config = read_config(directory.path());
  expect_error(ExitCode::kBadData, {"config.json", "quantization_config", "all plain", "fp8"},
               [&] { const Checkpoint checkpoint(directory.path(), config.quantization); });
}

TEST(QuantizedCheckpoint, AWrongSwitchIsAFaultOfEveryWeight) {
  QuantizedFiles files("nf4");
  files.quantization()["bnb_4bit_use_double_quant"] = true;
  const TempDir directory;
  files.write(directory);
  const ModelConfig config = read_config(directory.path());
  const Checkpoint checkpoint(directory.path(), config.quantization);
  EXPECT_EQ(find_faults(config, checkpoint, 3).count, 12);
  expect_error(ExitCode::kBadData, {".weight.absmax\"", "dtype U8", "found F32"},
               [&] { require_model(config, checkpoint); });
}

struct Wrong {
  const char* golden;
  nlohmann::json change;  // merged into quantization_config
  std::vector<std::string> message;
};

TEST(QuantizationConfig, IsRefusedByField) {
  const auto weights = [](const nlohmann::json& change) {
    return nlohmann::json{{"config_groups", {{"group_0", {{"weights", change}}}}}};
  };
  const std::vector<Wrong> all = {
      {"fp8_block", {{"quant_method", "hqq"}}, {"quant_method", "one of fp8", "hqq"}},
      {"fp8_block", {{"quant_method", nullptr}}, {"quant_method"}},
      {"fp8_block", {{"weight_block_size", {32, 0}}}, {"weight_block_size", "[32,0]"}},
      {"fp8_block", {{"weight_block_size", {32, 32, 32}}}, {"weight_block_size"}},
      {"fp8_block", {{"weight_block_size", "128"}}, {"weight_block_size"}},
      {"fp8_block", {{"fmt", "e5m2"}}, {"fmt", "e4m3", "e5m2"}},
      {"fp8_block", {{"scale_fmt", "e4m3"}}, {"scale_fmt", "ue8m0"}},
      {"fp8_block", {{"expert_dtype", "fp4"}}, {"expert_dtype", "fp4"}},
      {"fp8_block", {{"modules_to_not_convert", "lm_head"}}, {"modules_to_not_convert", "list"}},
      {"fp8_block", {{"modules_to_not_convert", {"(a"}}}, {"modules_to_not_convert", "(a"}},
      {"fp8_channel", {{"format", "marlin-24"}}, {"format", "float-quantized", "marlin-24"}},
      {"fp8_channel", {{"sparsity_config", {{"format", "sparse-24-bitmask"}}}}, {"sparsity_config", "sparse"}},
      {"fp8_channel", {{"transform_config", {{"a", 1}}}}, {"transform_config"}},
      {"fp8_channel", {{"config_groups", {{"group_0", {{"weights", nullptr}}}}}}, {"group_0.weights", "activations"}},
      {"fp8_channel", weights({{"strategy", "token"}}), {"strategy", "token"}},
      {"fp8_channel", weights({{"strategy", "block"}}), {"block_structure"}},
      {"fp8_channel", weights({{"num_bits", 4}}), {"num_bits", "8", "found 4"}},
      {"fp8_channel", weights({{"symmetric", false}}), {"symmetric"}},
      {"int4_packed", weights({{"num_bits", 9}}), {"num_bits", "1 to 8"}},
      {"int4_packed", weights({{"group_size", 0}}), {"group_size"}},
      {"int4_packed", weights({{"type", "float"}}), {"type", "int"}},
      {"nvfp4_modelopt", {{"quant_algo", "W4A8_AWQ"}}, {"quant_algo", "NVFP4"}},
      {"awq", {{"version", "gemv"}}, {"version", "gemv"}},
      {"awq", {{"bits", 3}}, {"bits", "4"}},
      {"awq", {{"zero_point", false}}, {"zero_point"}},
      {"gptq", {{"bits", 3}}, {"bits", "2, 4 or 8"}},
      {"gptq", {{"checkpoint_format", "marlin"}}, {"checkpoint_format", "marlin"}},
      {"gptq", {{"dynamic", {{"-:a", 1}}}}, {"dynamic"}},
      {"nf4", {{"load_in_8bit", true}}, {"load_in_8bit"}},
      {"nf4", {{"load_in_4bit", false}}, {"load_in_4bit"}},
      {"nf4", {{"bnb_4bit_quant_type", "fp4"}}, {"bnb_4bit_quant_type", "nf4", "fp4"}},
  };
  for (const Wrong& wrong : all) {
    QuantizedFiles files(wrong.golden);
    files.quantization().merge_patch(wrong.change);
    const TempDir directory;
    files.write(directory);
    std::vector<std::string> parts = wrong.message;
    parts.emplace_back("config.json: quantization_config.");
    expect_error(ExitCode::kBadData, parts, [&] { read_config(directory.path()); });
  }
}

}  // namespace
}  // namespace winnow::model
