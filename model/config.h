// Reads config.json into ModelConfig, in both dialects (the hub's and Transformers 5's). Refuses by name what changes
// the mathematics and is not supported.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/layer_kinds.h"
#include "kernels/ops.h"
#include "model/experts_config.h"
#include "model/quantization/scheme.h"
#include "model/rope_config.h"

namespace winnow::model {

struct Family;  // model/families.h

// Dimensions use the field's names: tokens (T), hidden, heads, kv heads, head_dim, ffn (intermediate_size), vocab.
struct ModelConfig {
  const Family* family = nullptr;
  int64_t n_layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t max_positions = 0;  // max_position_embeddings
  kernels::HeadShape heads;
  ExpertsConfig experts;     // of layers that have some in place of one MLP
  int64_t n_mtp_layers = 0;  // further layers of the checkpoint that predict more tokens at a time: not read
  kernels::NormShape norm;   // of every norm, those of queries and keys too
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool has_qk_norm = false;
  float embedding_scale = 1.F;  // multiplies embeddings
  float residual_scale = 1.F;   // multiplies what attention and MLP add
  kernels::LogitShape logits;
  // torch_dtype / dtype: what the residual stream has when served. kOther where config.json leaves it to the weights:
  // Checkpoint::dtype().
  kernels::DType checkpoint_dtype = kernels::DType::kBf16;
  std::vector<RopeConfig> ropes;     // different ones that layers have, at least one
  std::vector<int32_t> layer_ropes;  // (n_layers), index into ropes
  // Where positions follow the type of a layer: those of one with a window, index into ropes.
  std::optional<int32_t> windowed_rope;
  // A window that the checkpoint itself sets, per layer (empty: none), as Transformers would apply it: keys that a row
  // sees, itself included.
  std::optional<int64_t> native_window;
  std::vector<bool> native_window_layers;
  // (n_layers), scales of keys and values that the checkpoint has for a cache of type fp8; empty: it has none.
  std::vector<quantization::KvScales> kv_scales;
  quantization::Scheme quantization;  // how weights are stored that are not plain numbers; empty: all are
  std::string model_type;             // as written
  std::string text;                   // the whole config.json: part of the checkpoint's identity

  // Returns the width of what a row passes through in place of one MLP, the mean over the layers.
  int64_t mean_active_ffn() const;
  // Returns how a cache of that type rounds the keys and values of a layer.
  kernels::KvRounding kv_rounding(KvType type, int64_t layer) const {
    const quantization::KvScales scales =
        kv_scales.empty() ? quantization::KvScales{} : kv_scales[static_cast<std::size_t>(layer)];
    return {type, scales.key, scales.value};
  }
  // Returns the rotary embedding of a layer.
  const RopeConfig& rope_of(int64_t layer) const {
    return ropes[static_cast<std::size_t>(layer_ropes[static_cast<std::size_t>(layer)])];
  }
};

// Reads DIR/config.json. Throws Error(kNoInput | kBadData) naming file and field.
ModelConfig read_config(const std::filesystem::path& model_dir);
// Does the same with the text of a config.json; `origin` names it in messages. This is the fuzz target.
ModelConfig parse_config(const std::string& text, const std::string& origin);

}  // namespace winnow::model
