#include "model/families.h"

#include <algorithm>
#include <vector>

#include "model/expert_families.h"

namespace winnow::model {

namespace {

using kernels::Activation;
using kernels::NormKind;

// Norms around attention and MLP, as Gemma calls them.
constexpr LayerNames kGemmaNames = {.attention_norm = "input_layernorm",
                                    .attention_output_norm = "post_attention_layernorm",
                                    .mlp_norm = "pre_feedforward_layernorm",
                                    .mlp_output_norm = "post_feedforward_layernorm"};
// Norms after attention and MLP alone.
constexpr LayerNames kPostNormNames = {.attention_norm = {},
                                       .attention_output_norm = "post_attention_layernorm",
                                       .mlp_norm = {},
                                       .mlp_output_norm = "post_feedforward_layernorm"};

// Source: Transformers 5, models/FAMILY/configuration_FAMILY.py (defaults) and modeling_FAMILY.py (biases, norms,
// windows). Defaults that most share are in FamilyDefaults.
constexpr Family kDenseFamilies[] = {
    {
        .model_type = "qwen3",
        .architecture = "Qwen3ForCausalLM",
        .reads = "attention_bias",
        .qk_norm = QkNorm::kPerHead,
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
        .reads = "attention_bias mlp_bias",
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
    {
        .model_type = "ministral3",
        .architecture = "Ministral3ForCausalLM",
        .reads = "llama_4_scaling_beta",
        .native_window = NativeWindow::kAllLayers,
        .defaults = {.vocab = 131072,
                     .hidden = 4096,
                     .ffn = 14336,
                     .n_layers = 34,
                     .n_heads = 32,
                     .n_kv_heads = 8,
                     .head_dim = 128,
                     .max_positions = 262144,
                     .norm_eps = 1e-5},
    },
    {
        .model_type = "qwen3_vl_text",
        .architecture = "Qwen3VLForConditionalGeneration",
        .reads = "attention_bias mrope_section",
        .qk_norm = QkNorm::kPerHead,
        .defaults = {.vocab = 151936,
                     .hidden = 4096,
                     .ffn = 22016,
                     .n_layers = 32,
                     .n_heads = 32,
                     .n_kv_heads = 32,
                     .head_dim = 128,
                     .max_positions = 128000,
                     .theta = 500000.0},
    },
    {
        .model_type = "seed_oss",
        .architecture = "SeedOssForCausalLM",
        .reads = "attention_bias attention_out_bias mlp_bias",
        .o_bias = false,
        .defaults = {.vocab = 155136,
                     .hidden = 4096,
                     .ffn = 27648,
                     .n_layers = 64,
                     .n_heads = 80,
                     .n_kv_heads = 8,
                     .head_dim = 128,
                     .max_positions = 524288,
                     .attention_bias = true},
    },
    {
        .model_type = "smollm3",
        .architecture = "SmolLM3ForCausalLM",
        .reads = "attention_bias mlp_bias no_rope_layers no_rope_layer_interval",
        .positions = Positions::kNoneOnSome,
        .native_window = NativeWindow::kByLayer,
        .defaults = {.vocab = 128256,
                     .hidden = 2048,
                     .ffn = 11008,
                     .n_layers = 36,
                     .n_heads = 16,
                     .n_kv_heads = 4,
                     .max_positions = 32768,
                     .theta = 2e6,
                     .tied = true},
    },
    {
        .model_type = "granite",
        .architecture = "GraniteForCausalLM",
        .reads = "attention_bias mlp_bias attention_multiplier residual_multiplier embedding_multiplier logits_scaling",
        .defaults =
            {.vocab = 32000, .hidden = 4096, .ffn = 11008, .n_layers = 32, .n_heads = 32, .max_positions = 2048},
    },
    {
        .model_type = "granite_swa",
        .architecture = "GraniteSWAForCausalLM",
        .reads = "attention_bias mlp_bias attention_multiplier residual_multiplier embedding_multiplier logits_scaling "
                 "layer_rope_theta",
        .names = {.sink_logits = "self_attn.sinks"},
        .positions = Positions::kThetaByLayer,
        .native_window = NativeWindow::kPattern,
        .full_period = 4,
        .full_first = true,
        .defaults = {.vocab = 100352,
                     .hidden = 2560,
                     .ffn = 8192,
                     .n_layers = 24,
                     .n_heads = 20,
                     .n_kv_heads = 4,
                     .max_positions = 8192,
                     .sliding_window = 128,
                     .norm_eps = 1e-5,
                     .tied = true},
    },
    {
        .model_type = "phi3",
        .architecture = "Phi3ForCausalLM",
        .reads = "partial_rotary_factor",
        .names = {.qkv = "self_attn.qkv_proj", .gate_up = "mlp.gate_up_proj"},
        .long_rope_aliases = true,
        .native_window = NativeWindow::kAllLayers,
        .defaults = {.vocab = 32064,
                     .hidden = 3072,
                     .ffn = 8192,
                     .n_layers = 32,
                     .n_heads = 32,
                     .max_positions = 4096,
                     .norm_eps = 1e-5},
    },
    {
        .model_type = "glm4",
        .architecture = "Glm4ForCausalLM",
        .reads = "attention_bias partial_rotary_factor",
        .names = {.attention_output_norm = "post_self_attn_layernorm",
                  .mlp_output_norm = "post_mlp_layernorm",
                  .gate_up = "mlp.gate_up_proj"},
        .o_bias = false,
        .interleaved_rope = true,
        .defaults = {.vocab = 151552,
                     .hidden = 4096,
                     .ffn = 13696,
                     .n_layers = 40,
                     .n_heads = 32,
                     .n_kv_heads = 2,
                     .head_dim = 128,
                     .max_positions = 131072,
                     .norm_eps = 1.5625e-7,
                     .attention_bias = true,
                     .partial_rotary = 0.5},
    },
    {
        .model_type = "hunyuan_v1_dense",
        .architecture = "HunYuanDenseV1ForCausalLM",
        .reads = "attention_bias use_qk_norm",
        .names = {.q_norm = "self_attn.query_layernorm", .k_norm = "self_attn.key_layernorm"},
        .qk_norm = QkNorm::kPerHead,
        .qk_norm_after_rope = true,
        .defaults = {.vocab = 290943,
                     .hidden = 4096,
                     .ffn = 11008,
                     .n_layers = 32,
                     .n_heads = 32,
                     .max_positions = 2048,
                     .norm_eps = 1e-5},
    },
    {
        .model_type = "olmo2",
        .architecture = "Olmo2ForCausalLM",
        .reads = "attention_bias",
        .names = kPostNormNames,
        .qk_norm = QkNorm::kAllHeads,
        .defaults = {.vocab = 50304,
                     .hidden = 4096,
                     .ffn = 11008,
                     .n_layers = 32,
                     .n_heads = 32,
                     .max_positions = 2048,
                     .norm_eps = 1e-5},
    },
    {
        .model_type = "olmo3",
        .architecture = "Olmo3ForCausalLM",
        .reads = "attention_bias",
        .names = kPostNormNames,
        .qk_norm = QkNorm::kAllHeads,
        .positions = Positions::kByLayerType,
        .native_window = NativeWindow::kPattern,
        .full_period = 4,
        .defaults = {.vocab = 50304,
                     .hidden = 4096,
                     .ffn = 11008,
                     .n_layers = 32,
                     .n_heads = 32,
                     .max_positions = 2048,
                     .sliding_window = 4096,
                     .theta = 500000.0,
                     .local_theta = 500000.0,
                     .norm_eps = 1e-5},
    },
    {
        .model_type = "exaone4",
        .architecture = "Exaone4ForCausalLM",
        .reads = "sliding_window_pattern",
        .names = kPostNormNames,
        .qk_norm = QkNorm::kPerHead,
        .positions = Positions::kNoneOnFull,
        .native_window = NativeWindow::kPattern,
        .full_period = 4,
        .defaults = {.vocab = 102400,
                     .hidden = 4096,
                     .ffn = 16384,
                     .n_layers = 32,
                     .n_heads = 32,
                     .n_kv_heads = 32,
                     .max_positions = 2048,
                     .sliding_window = 4096,
                     .norm_eps = 1e-5},
    },
    {
        .model_type = "cohere2",
        .architecture = "Cohere2ForCausalLM",
        .reads = "attention_bias logit_scale sliding_window_pattern layer_norm_eps",
        .names = {.mlp_norm = {}},
        .norm = NormKind::kLayer,
        .parallel = true,
        .positions = Positions::kNoneOnFull,
        .none_without_windows = true,
        .interleaved_rope = true,
        .native_window = NativeWindow::kPattern,
        .full_period = 4,
        .defaults = {.vocab = 256000,
                     .hidden = 8192,
                     .ffn = 22528,
                     .n_layers = 40,
                     .n_heads = 64,
                     .max_positions = 8192,
                     .sliding_window = 4096,
                     .norm_eps = 1e-5,
                     .tied = true,
                     .logit_scale = 0.0625},
    },
    {
        .model_type = "gemma2",
        .architecture = "Gemma2ForCausalLM",
        .reads =
            "attention_bias query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping hidden_activation",
        .names = kGemmaNames,
        .norm_plus_one = true,
        .activation = Activation::kGeluTanh,
        .scaled_embedding = true,
        .native_window = NativeWindow::kPattern,
        .full_period = 2,
        .defaults = {.vocab = 256000,
                     .hidden = 2304,
                     .ffn = 9216,
                     .n_layers = 26,
                     .n_heads = 8,
                     .n_kv_heads = 4,
                     .head_dim = 256,
                     .max_positions = 8192,
                     .sliding_window = 4096,
                     .tied = true,
                     .query_pre_attn_scalar = 256.0,
                     .attention_softcap = 50.0,
                     .logit_softcap = 30.0},
    },
    {
        .model_type = "gemma3_text",
        .architecture = "Gemma3ForCausalLM",
        .reads =
            "attention_bias query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping hidden_activation "
            "sliding_window_pattern rope_local_base_freq",
        .names = kGemmaNames,
        .qk_norm = QkNorm::kPerHead,
        .norm_plus_one = true,
        .activation = Activation::kGeluTanh,
        .scaled_embedding = true,
        .positions = Positions::kByLayerType,
        .native_window = NativeWindow::kPattern,
        .full_period = 6,
        .defaults = {.vocab = 262208,
                     .hidden = 2304,
                     .ffn = 9216,
                     .n_layers = 26,
                     .n_heads = 8,
                     .n_kv_heads = 4,
                     .head_dim = 256,
                     .max_positions = 131072,
                     .sliding_window = 4096,
                     .theta = 1e6,
                     .tied = true,
                     .query_pre_attn_scalar = 256.0},
    },
};

}  // namespace

std::span<const Family> families() {
  static const std::vector<Family> all = [] {
    std::vector<Family> both(std::begin(kDenseFamilies), std::end(kDenseFamilies));
    const std::span<const Family> others = expert_families();
    both.insert(both.end(), others.begin(), others.end());
    return both;
  }();
  return all;
}

const Family* find_family(std::string_view model_type) {
  const std::span<const Family> all = families();
  const auto found = std::ranges::find(all, model_type, &Family::model_type);
  return found == all.end() ? nullptr : &*found;
}

std::string first_word(std::string_view words) { return std::string(words.substr(0, words.find(' '))); }

bool has_word(std::string_view words, std::string_view word) {
  for (std::size_t at = words.find(word); at != std::string_view::npos; at = words.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || words[at - 1] == ' ') && (end == words.size() || words[end] == ' ')) return !word.empty();
  }
  return false;
}

}  // namespace winnow::model
