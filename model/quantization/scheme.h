// What a config.json says about quantised weights: which modules, in which format.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/quantization/modules.h"

namespace winnow::quantization {

struct Format;  // model/quantization/formats.h

// How the weights of a module are stored.
struct Weights {
  const Format* format = nullptr;
  // Rows and columns of a weight that share a scale. kAll: all of them.
  static constexpr int64_t kAll = 0;
  int64_t block_rows = kAll;
  int64_t block_cols = kAll;
  // The config does not say it: one scale for all of a weight is as good as the blocks.
  bool may_be_one_scale = false;
  int64_t bits = 8;              // of a code that is an integer
  bool has_zero_points = false;  // of integers
  bool zeros_less_one = false;   // GPTQ's first version stores a zero point as the number below
  bool is_ordered = false;       // GPTQ: columns may be in any group, `g_idx` says which
  bool is_nested = false;        // bitsandbytes: the scales are quantised too

  // Names format and block, for people and results: "fp8 in blocks of 128 x 128".
  std::string description() const;
};

// Scales of a layer's keys and values, where an engine keeps them in fp8.
struct KvScales {
  float key = 1.0F;
  float value = 1.0F;
};

// Empty (no groups) for a checkpoint that is not quantised.
struct Scheme {
  struct Group {
    std::optional<ModuleList> targets;  // absent: all modules
    Weights weights;
  };

  std::string method;  // quant_method
  std::vector<Group> groups;
  ModuleList ignored;
  std::string ignored_key;  // the field that lists them
  // The field that asks for quantised keys and values, empty: none does. Winnow keeps them as they are computed.
  std::string cache_key;

  bool empty() const { return groups.empty(); }
  // How the module's weights are stored; nullptr: as plain numbers.
  const Weights* weights_of(const std::string& module) const;
};

// Reads quantization_config of a config.json. Throws Error(kBadData) naming file and field for what is malformed and,
// by its name, for what winnow does not compute.
Scheme parse_scheme(const ConfigFields& config);

}  // namespace winnow::quantization
