// A family is a row of switches and defaults, not a class: it says how decoder-only models differ that share the Llama
// layer and its tensor names (model/declared_tensors.cc).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace winnow::model {

// Rule by which a family's Transformers model gives layers a sliding window of their own.
enum class NativeWindow {
  kNever,      // Llama: config.json's sliding_window is ignored
  kAllLayers,  // Mistral: every layer, where sliding_window is not null
  kByLayer,    // Qwen2, Qwen3: use_sliding_window, then layer_types, else the layers from max_window_layers on
};

// Defaults of the family's Transformers config class, where config.json omits a field. 0: derived, see each.
struct FamilyDefaults {
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;  // 0: n_heads
  int64_t head_dim = 0;    // 0: hidden / n_heads
  int64_t max_positions = 0;
  int64_t sliding_window = 0;  // 0: the family has none
  int64_t max_window_layers = 0;
};

struct Family {
  std::string_view model_type;    // config.json's model_type
  std::string_view architecture;  // the one of config.json's architectures that winnow computes
  bool qk_norm = false;
  bool qkv_bias_always = false;       // Qwen2: q, k, v have biases whatever config.json says, o has none
  bool reads_attention_bias = false;  // config.json's attention_bias (q, k, v, o)
  bool reads_mlp_bias = false;        // config.json's mlp_bias
  NativeWindow native_window = NativeWindow::kNever;
  FamilyDefaults defaults;
};

std::span<const Family> families();
const Family* find_family(std::string_view model_type);  // nullptr: unknown

}  // namespace winnow::model
