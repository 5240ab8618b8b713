// The rotary embeddings of a model: which kinds there are, and how config.json says them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace winnow::model {

struct Family;  // model/families.h

// One rotary embedding. Source: Transformers modeling_rope_utils.py, the types of the same names.
struct RopeConfig {
  enum class Type { kNone, kDefault, kLinear, kDynamic, kYarn, kLongRope, kLlama3, kProportional };
  Type type = Type::kDefault;  // kNone: the layer has no position (NoPE)
  double theta = 10000.0;
  // Dimensions of a head that turn, even; 0: all of them. They are the first ones, but for kProportional, whose share
  // of all pairs they are.
  int64_t rotary_dim = 0;
  bool is_interleaved = false;   // pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2)
  double factor = 1.0;           // all but kDefault and kLongRope
  double low_freq_factor = 1.0;  // kLlama3, with the next
  double high_freq_factor = 1.0;
  double beta_fast = 32.0;  // kYarn, with the next two
  double beta_slow = 1.0;
  bool truncate = true;
  std::vector<double> short_factor;  // kLongRope, one a pair: sequences up to original_max_position, and beyond
  std::vector<double> long_factor;
  int64_t original_max_position = 0;  // positions that the model was trained with before it was stretched
  double attention_scaling = 1.0;     // multiplies cosines and sines
  // Queries at position p are multiplied by 1 + query_beta * ln(1 + floor(p / original_max_position)) (Ministral 3).
  double query_beta = 0.0;

  bool operator==(const RopeConfig&) const = default;
};

// Returns the type as config.json spells it.
const char* rope_type_name(RopeConfig::Type type);

// Reads the rotary embedding of a model of these head dimensions and positions; both dialects: the hub's rope_theta and
// rope_scaling at top level, Transformers 5's rope_parameters with both. The precedence is that of Transformers'
// convert_rope_params_to_dict. `layer_type` names the table of its own that a type of layer has in rope_parameters, or
// is empty. Throws Error(kBadData) naming file, field, expected and found.
RopeConfig read_rope(const ConfigFields& fields, const Family& family, int64_t head_dim, int64_t max_positions,
                     const std::string& layer_type = "");

}  // namespace winnow::model
