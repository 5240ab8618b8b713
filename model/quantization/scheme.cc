#include "model/quantization/scheme.h"

#include <array>

#include "base/error.h"
#include "model/quantization/compressed_tensors.h"
#include "model/quantization/formats.h"
#include "model/quantization/readers.h"

namespace winnow::quantization {

namespace {

constexpr const char* kField = "quantization_config";

void add(Scheme& scheme, Weights weights) { scheme.groups.push_back({std::nullopt, weights}); }

// An engine may follow it or not, as its own options say: it is no part of the weights.
void read_cache(const ConfigFields& fields, Scheme& scheme) {
  for (const char* key : {"kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_quant_method"}) {
    if (fields.has(key)) scheme.cache_key = key;
  }
}

// Transformers' FineGrainedFP8Config, and vLLM's fp8 of the same name.
void read_fp8(const ConfigFields& fields, Scheme& scheme) {
  require_text(fields, "fmt", {"e4m3", "float8_e4m3fn"});
  require_text(fields, "activation_scheme", {"dynamic", "static"});
  require_text(fields, "scale_fmt", {"float", "ue8m0"});
  require_text(fields, "expert_dtype", {"fp8"});
  require_absent(fields, {"modules_to_convert"});
  Weights weights{.format = &kFp8};
  const char* key = "weight_block_size";
  if (fields.has(key)) {
    const nlohmann::json& block = fields.value(key);
    const bool is_pair = block.is_array() && block.size() == 2;
    const auto is_extent = [](const nlohmann::json& n) {
      return n.is_number_unsigned() && n.get<uint64_t>() > 0 && n.get<uint64_t>() <= uint64_t{1} << 31;
    };
    if (!is_pair || !is_extent(block[0]) || !is_extent(block[1])) fields.refuse(key, "two integers > 0 or null");
    weights.block_rows = block[0].get<int64_t>();
    weights.block_cols = block[1].get<int64_t>();
  } else if (fields.is_absent(key)) {
    // Transformers' default; others leave the field out where each weight has one scale.
    weights.block_rows = weights.block_cols = 128;
    weights.may_be_one_scale = true;
  }
  read_ignored(fields, scheme, {"modules_to_not_convert", "ignored_layers"}, ModuleRule::kPrefix);
  add(scheme, weights);
}

// One scale for each row.
void read_fbgemm(const ConfigFields& fields, Scheme& scheme) {
  read_ignored(fields, scheme, {"modules_to_not_convert"}, ModuleRule::kPrefix);
  add(scheme, {.format = &kFp8, .block_rows = 1});
}

void read_mxfp4(const ConfigFields& fields, Scheme& scheme) {
  read_ignored(fields, scheme, {"modules_to_not_convert"}, ModuleRule::kPrefix);
  add(scheme, {.format = &kMxfp4Blocks, .block_rows = 1, .block_cols = 32, .bits = 4});
}

void read_awq(const ConfigFields& fields, Scheme& scheme) {
  if (fields.integer("bits", 4, 1) != 4) fields.refuse("bits", "4");
  if (!fields.boolean("zero_point", true)) fields.refuse("zero_point", "true");
  require_text(fields, "version", {"gemm", "GEMM"});
  read_ignored(fields, scheme, {"modules_to_not_convert"}, ModuleRule::kPrefix);
  add(scheme, {.format = &kAwq, .block_rows = 1, .block_cols = read_group_size(fields, 128), .bits = 4});
}

void read_gptq(const ConfigFields& fields, Scheme& scheme) {
  const int64_t bits = fields.integer("bits", 4, 1);
  if (bits != 2 && bits != 4 && bits != 8) fields.refuse("bits", "2, 4 or 8");
  require_text(fields, "checkpoint_format", {"gptq", "gptq_v2"});
  require_text(fields, "pack_dtype", {"int32"});
  require_absent(fields, {"dynamic", "is_marlin_format"});
  read_ignored(fields, scheme, {"modules_to_not_convert"}, ModuleRule::kPrefix);
  add(scheme, {.format = &kGptq,
               .block_rows = 1,
               .block_cols = read_group_size(fields, 128),
               .bits = bits,
               .zeros_less_one = fields.text("checkpoint_format", "gptq") == "gptq",
               .is_ordered = fields.boolean("desc_act", false)});
}

void read_bitsandbytes(const ConfigFields& fields, Scheme& scheme) {
  if (fields.boolean("load_in_8bit", false)) fields.refuse("load_in_8bit", "false: of bitsandbytes winnow reads nf4");
  if (!fields.boolean("load_in_4bit", false)) fields.refuse("load_in_4bit", "true: of bitsandbytes winnow reads nf4");
  if (!fields.has("bnb_4bit_quant_type")) fields.refuse("bnb_4bit_quant_type", "nf4");
  require_text(fields, "bnb_4bit_quant_type", {"nf4"});
  require_text(fields, "bnb_4bit_quant_storage", {"uint8"});
  read_ignored(fields, scheme, {"llm_int8_skip_modules"}, ModuleRule::kPrefix);
  add(scheme, {.format = &kBitsandbytes,
               .block_rows = 1,
               .block_cols = 64,
               .bits = 4,
               .is_nested = fields.boolean("bnb_4bit_use_double_quant", false)});
}

struct Method {
  std::string_view name;  // quant_method
  void (*read)(const ConfigFields& fields, Scheme& scheme);
};

constexpr std::array kMethods = {
    Method{"fp8", read_fp8},
    Method{"fbgemm_fp8", read_fbgemm},
    Method{"compressed-tensors", read_compressed_tensors},
    Method{"mxfp4", read_mxfp4},
    Method{"modelopt", read_modelopt},
    Method{"awq", read_awq},
    Method{"gptq", read_gptq},
    Method{"bitsandbytes", read_bitsandbytes},
};

}  // namespace

std::string Weights::description() const {
  std::string text(format->name);
  if (text.ends_with("int")) text += std::to_string(bits);
  const auto extent = [](int64_t n) { return n == kAll ? std::string("all") : std::to_string(n); };
  if (block_rows == kAll && block_cols == kAll) return text + " per tensor";
  if (block_rows == 1 && block_cols == kAll) return text + " per channel";
  if (is_nested) text += ", nested,";
  if (block_rows == 1) return text + " in groups of " + extent(block_cols);
  return text + " in blocks of " + extent(block_rows) + " x " + extent(block_cols);
}

const Weights* Scheme::weights_of(const std::string& module) const {
  if (ignored.matches(module)) return nullptr;
  // A group that names the module goes before one that names its class.
  for (const Group& group : groups) {
    if (group.targets && group.targets->matches(module)) return &group.weights;
  }
  for (const Group& group : groups) {
    if (!group.targets || group.targets->has_class()) return &group.weights;
  }
  return nullptr;
}

Scheme parse_scheme(const ConfigFields& config) {
  Scheme scheme;
  if (!config.has(kField)) return scheme;
  const nlohmann::json& object = config.value(kField);
  if (!object.is_object()) config.refuse(kField, "an object or null");
  const ConfigFields fields(object, config.origin(), std::string(kField) + ".");
  scheme.method = fields.text("quant_method", "");
  read_cache(fields, scheme);
  std::string known;
  for (const Method& method : kMethods) {
    if (scheme.method == method.name) {
      method.read(fields, scheme);
      return scheme;
    }
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  fields.refuse("quant_method", "one of " + known);
}

}  // namespace winnow::quantization
