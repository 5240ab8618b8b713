#include "model/quantization/compressed_tensors.h"

#include <cmath>

#include "base/error.h"
#include "model/quantization/formats.h"
#include "model/quantization/readers.h"
#include "model/quantization/scheme.h"

namespace winnow::quantization {

namespace {

using Json = nlohmann::json;

// A block of rows and columns, from block_structure.
void read_block(const ConfigFields& fields, Weights& weights) {
  const char* key = "block_structure";
  const Json& block = fields.value(key);
  const auto is_extent = [](const Json& n) {
    return n.is_number_unsigned() && n.get<uint64_t>() > 0 && n.get<uint64_t>() <= uint64_t{ConfigFields::kMaxSize};
  };
  const bool is_pair = block.is_array() && block.size() == 2 && is_extent(block[0]) && is_extent(block[1]);
  if (!is_pair) fields.refuse(key, "two integers > 0");
  weights.block_rows = block[0].get<int64_t>();
  weights.block_cols = block[1].get<int64_t>();
}

void read_strategy(const ConfigFields& fields, Weights& weights) {
  // As compressed-tensors takes it where it is not said.
  const bool has_group = fields.has("group_size") && fields.value("group_size") != -1;
  const std::string strategy = fields.has("strategy") ? fields.text("strategy", "") : has_group ? "group" : "tensor";
  if (strategy == "tensor") return;
  if (strategy == "block") {
    read_block(fields, weights);
    return;
  }
  weights.block_rows = 1;
  if (strategy == "channel") return;
  if (strategy != "group" && strategy != "tensor_group") {
    fields.refuse("strategy", "tensor, channel, group, tensor_group or block");
  }
  if (!has_group) fields.refuse("group_size", "an integer > 0 for strategy " + strategy);
  weights.block_cols = read_group_size(fields, 0);
}

struct NamedFormat {
  std::string_view name;
  const char* type;  // of its numbers
  int64_t bits;      // 0: any from 1 to 8
  const Format* format;
};

const NamedFormat kNamedFormats[] = {
    {"float-quantized", "float", 8, &kFp8},        {"naive-quantized", "float", 8, &kFp8},
    {"mxfp8-quantized", "float", 8, &kFp8},        {"int-quantized", "int", 8, &kInt8},
    {"pack-quantized", "int", 0, &kPackedInt},     {"nvfp4-pack-quantized", "float", 4, &kNvfp4},
    {"mxfp4-pack-quantized", "float", 4, &kMxfp4},
};

const Format* find_format(const ConfigFields& fields, const std::string& name) {
  std::string known;
  for (const NamedFormat& each : kNamedFormats) {
    if (each.name == name) return each.format;
    known += (known.empty() ? "" : ", ") + std::string(each.name);
  }
  fields.refuse("format", "one of " + known);
}

void require_numbers(const ConfigFields& fields, const std::string& format, int64_t bits) {
  const std::string type = fields.text("type", "int");
  for (const NamedFormat& each : kNamedFormats) {
    if (each.name != format) continue;
    if (type != each.type) fields.refuse("type", std::string(each.type) + " for format " + format);
    if (each.bits != 0 ? bits != each.bits : bits < 1 || bits > 8) {
      fields.refuse("num_bits", (each.bits == 0 ? "1 to 8" : std::to_string(each.bits)) + " for format " + format);
    }
  }
}

void read_group(const ConfigFields& group, const std::string& prefix, const ConfigFields& all, Scheme& scheme) {
  if (!group.has("weights")) group.refuse("weights", "how they are quantised: without it only activations are");
  if (!group.value("weights").is_object()) group.refuse("weights", "an object");
  const ConfigFields fields(group.value("weights"), group.origin(), prefix + "weights.");
  const ConfigFields& named = group.has("format") ? group : all;
  const std::string format = named.text("format", "");
  Weights weights{.format = find_format(named, format), .bits = fields.integer("num_bits", 8, 1)};
  require_numbers(fields, format, weights.bits);
  read_strategy(fields, weights);
  weights.has_zero_points = !fields.boolean("symmetric", true);
  if (weights.has_zero_points && weights.format != &kPackedInt) fields.refuse("symmetric", "true for format " + format);
  const ModuleList targets(group, "targets", ModuleRule::kExact);
  scheme.groups.push_back({group.has("targets") ? std::optional(targets) : std::nullopt, weights});
}

void read_groups(const ConfigFields& fields, Scheme& scheme) {
  const Json& groups = fields.value("config_groups");
  if (!groups.is_object() || groups.empty()) fields.refuse("config_groups", "an object of groups of modules");
  for (const auto& [name, group] : groups.items()) {
    const std::string prefix = "quantization_config.config_groups." + name + ".";
    if (!group.is_object()) fields.refuse("config_groups", "an object of objects");
    read_group(ConfigFields(group, fields.origin(), prefix), prefix, fields, scheme);
  }
}

}  // namespace

void read_compressed_tensors(const ConfigFields& fields, Scheme& scheme) {
  require_text(fields, "quantization_status", {"compressed", "frozen"});
  require_absent(fields, {"transform_config"});
  const Json& sparsity = fields.value("sparsity_config");
  if (sparsity.is_object() && !sparsity.empty() && sparsity.value("format", Json()) != "dense") {
    fields.refuse("sparsity_config", "none, or format dense: winnow does not read sparse weights");
  }
  read_ignored(fields, scheme, {"ignore"}, ModuleRule::kExact);
  read_groups(fields, scheme);
}

void read_modelopt(const ConfigFields& fields, Scheme& scheme) {
  require_text(fields, "quant_algo", {"FP8", "NVFP4"});
  read_ignored(fields, scheme, {"ignore", "exclude_modules"}, ModuleRule::kWildcards);
  const std::string algorithm = fields.text("quant_algo", "");
  if (algorithm == "FP8") {
    scheme.groups.push_back({std::nullopt, {.format = &kFp8}});
  } else if (algorithm == "NVFP4") {
    const int64_t group = read_group_size(fields, 16);
    scheme.groups.push_back(
        {std::nullopt, {.format = &kNvfp4ModelOpt, .block_rows = 1, .block_cols = group, .bits = 4}});
  } else {
    fields.refuse("quant_algo", "FP8 or NVFP4");
  }
}

}  // namespace winnow::quantization
