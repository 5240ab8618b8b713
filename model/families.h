// A family is a table row of switches and tensor names, not a class: what differs between decoder-only models that
// share the Llama layer.
#pragma once

#include <span>
#include <string_view>

namespace winnow {

struct Family {
  std::string_view model_type;  // config.json's model_type
  bool qk_norm = false;
  // Defaults of that family's Transformers config class, where config.json omits them.
  bool qkv_bias_always = false;      // Qwen2: q, k, v have biases whatever config.json says, o has none
  bool reads_attention_bias = false; // config.json's attention_bias (q, k, v, o)
  bool reads_mlp_bias = false;       // config.json's mlp_bias
  // ... model/families.cc documents each row with its source.
};

std::span<const Family> families();
const Family* find_family(std::string_view model_type);  // nullptr: unknown

}  // namespace winnow
