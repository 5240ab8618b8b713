#include "model/families.h"

#include <algorithm>

namespace winnow::model {

namespace {

// Source: Transformers 5, models/FAMILY/configuration_FAMILY.py (defaults) and modeling_FAMILY.py (biases, norms,
// windows). Defaults that all share (rms_norm_eps 1e-6, rope_theta 1e4, untied, silu) are in model/config.cc.
constexpr Family kFamilies[] = {
    {
        .model_type = "qwen3",
        .architecture = "Qwen3ForCausalLM",
        .qk_norm = true,
        .reads_attention_bias = true,
        .native_window = NativeWindow::kByLayer,
        .defaults = {.vocab = 151936,
                     .hidden = 4096,
                     .ffn = 22016,
                     .n_layers = 32,
                     .n_heads = 32,
                     .n_kv_heads = 32,
                     .head_dim = 128,
                     .max_positions = 32768,
                     .sliding_window = 4096,
                     .max_window_layers = 28},
    },
    {
        .model_type = "qwen2",
        .architecture = "Qwen2ForCausalLM",
        .qkv_bias_always = true,
        .native_window = NativeWindow::kByLayer,
        .defaults = {.vocab = 151936,
                     .hidden = 4096,
                     .ffn = 22016,
                     .n_layers = 32,
                     .n_heads = 32,
                     .n_kv_heads = 32,
                     .max_positions = 32768,
                     .sliding_window = 4096,
                     .max_window_layers = 28},
    },
    {
        .model_type = "llama",
        .architecture = "LlamaForCausalLM",
        .reads_attention_bias = true,
        .reads_mlp_bias = true,
        .defaults =
            {.vocab = 32000, .hidden = 4096, .ffn = 11008, .n_layers = 32, .n_heads = 32, .max_positions = 2048},
    },
    {
        .model_type = "mistral",
        .architecture = "MistralForCausalLM",
        .native_window = NativeWindow::kAllLayers,
        .defaults = {.vocab = 32000,
                     .hidden = 4096,
                     .ffn = 14336,
                     .n_layers = 32,
                     .n_heads = 32,
                     .n_kv_heads = 8,
                     .max_positions = 131072,
                     .sliding_window = 4096},
    },
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

const Family* find_family(std::string_view model_type) {
  const auto found = std::ranges::find(kFamilies, model_type, &Family::model_type);
  return found == std::end(kFamilies) ? nullptr : found;
}

}  // namespace winnow::model
