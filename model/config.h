// config.json -> ModelConfig, in both dialects (the hub's and Transformers 5's). Refuses by name what changes the
// mathematics and is not supported.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/quantization/scheme.h"

namespace winnow::model {

struct Family;  // model/families.h

// Rotary embedding. Source: Transformers modeling_rope_utils.py, types "default", "linear" and "llama3".
struct RopeConfig {
  enum class Type { kDefault, kLinear, kLlama3 };
  Type type = Type::kDefault;
  double theta = 10000.0;
  double factor = 1.0;           // linear and llama3
  double low_freq_factor = 1.0;  // llama3 only, with the two below
  double high_freq_factor = 1.0;
  int64_t original_max_position = 0;
};

// Dimensions use the field's names: tokens (T), hidden, heads, kv heads, head_dim, ffn (intermediate_size), vocab.
struct ModelConfig {
  const Family* family = nullptr;
  int64_t n_layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t max_positions = 0;  // max_position_embeddings
  kernels::HeadShape heads;
  float rms_eps = 0.F;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  // torch_dtype / dtype: what the residual stream has when served. kOther where config.json leaves it to the weights:
  // Checkpoint::dtype().
  kernels::DType checkpoint_dtype = kernels::DType::kBf16;
  RopeConfig rope;
  // A window that the checkpoint itself sets, per layer (empty: none), as Transformers would apply it: keys that a row
  // sees, itself included. Used to refuse or warn, never applied.
  std::optional<int64_t> native_window;
  std::vector<bool> native_window_layers;
  quantization::Scheme quantization;  // how weights are stored that are not plain numbers; empty: all are
  std::string model_type;             // as written
  std::string text;                   // the whole config.json: part of the checkpoint's identity
};

// Reads DIR/config.json. Throws Error(kNoInput | kBadData) naming file and field.
ModelConfig read_config(const std::filesystem::path& model_dir);
// The same for the text of a config.json; `origin` names it in messages. This is the fuzz target.
ModelConfig parse_config(const std::string& text, const std::string& origin);

}  // namespace winnow::model
