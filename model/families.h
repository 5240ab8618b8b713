// A family is a row of switches and defaults, not a class: what differs between decoder-only models that share
// the Llama layer. Which tensors a layer has is said by their names (model/declared_tensors.cc).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/experts.h"
#include "kernels/layer_kinds.h"

namespace winnow::model {

// Returns whether a list of words with single spaces between has the word.
bool has_word(std::string_view words, std::string_view word);

// Returns the first of them, for messages and files.
std::string first_word(std::string_view words);

// Rule by which a family's Transformers model gives layers a sliding window of their own.
enum class NativeWindow {
  kNever,      // Llama: config.json's sliding_window is ignored
  kAllLayers,  // Mistral: every layer, where sliding_window is not null
  kByLayer,    // Qwen2, Qwen3: use_sliding_window, then layer_types, else the layers from max_window_layers on
  kPattern,    // Gemma: layer_types, else every layer but each `full_period`-th
};

// Which layers turn their queries and keys, and how.
enum class Positions {
  kSame,          // all layers alike
  kByLayerType,   // Gemma 3, OLMo 3: a rotary embedding for each type of layer
  kNoneOnFull,    // Cohere 2, EXAONE 4: layers with full attention have no positions where others are windowed
  kNoneOnSome,    // SmolLM 3: no_rope_layers, else each no_rope_layer_interval-th layer has none
  kThetaByLayer,  // Granite SWA: layer_rope_theta has the base of each layer, 0 where it has none
};

enum class QkNorm {
  kNone,
  kPerHead,   // each head by itself, weight (head_dim)
  kAllHeads,  // all heads of a row together, weight (heads * head_dim)
};

// Ends of tensor names, "model.layers.N.NAME.weight", but for sink_logits, which ends there. Empty: the family has no
// such tensor.
struct LayerNames {
  std::string_view attention_norm = "input_layernorm";     // before attention
  std::string_view attention_output_norm = {};             // of what attention adds
  std::string_view mlp_norm = "post_attention_layernorm";  // before the MLP
  std::string_view mlp_output_norm = {};                   // of what the MLP adds
  std::string_view q_norm = "self_attn.q_norm";
  std::string_view k_norm = "self_attn.k_norm";
  std::string_view qkv = {};      // q, k, v one under the other; else three tensors
  std::string_view gate_up = {};  // gate and up one under the other; else two tensors
  // A logit for each head that joins the softmax of its every row and has no value.
  std::string_view sink_logits = {};
};

// Which layers have experts, the others having one MLP.
enum class ExpertLayers {
  kAll,
  kByStep,      // Qwen: decoder_sparse_step, less mlp_only_layers
  kAfterFirst,  // GLM: all but the first first_k_dense_replace
  kByInterval,  // ERNIE: moe_layer_start_index, _end_index and _interval
};

// Most experts of a layer: the memory for a router's scores follows from it.
inline constexpr int64_t kMaxExperts = 4096;

// The mixtures of experts of a family. Names are ends of tensor names, "model.layers.N.NAME".
struct ExpertsFamily {
  std::string_view n_experts_keys = {};  // names of one field of config.json, words; empty: the family is dense
  std::string_view top_k_keys = "num_experts_per_tok";
  std::string_view n_shared_key = {};  // of experts that every row has; empty: there are none
  int64_t n_experts = 0;               // defaults, as in FamilyDefaults
  int64_t top_k = 0;
  int64_t n_shared = 0;
  int64_t ffn = 0;  // moe_intermediate_size; 0: an expert is as wide as intermediate_size says
  ExpertLayers layers = ExpertLayers::kAll;
  kernels::RouterScores scores = kernels::RouterScores::kSoftmax;
  bool normalised = false;  // the default where config.json may say it
  std::string_view router = "mlp.gate";
  std::string_view correction = {};  // of the router's choice; empty: it has none
  bool correction_is_row = false;    // (1, n_experts)
  std::string_view each = "mlp.experts";
  std::string_view gate = "gate_proj";
  std::string_view up = "up_proj";
  std::string_view down = "down_proj";
  std::string_view shared = {};
  bool has_biases = false;  // of the router and of each expert
  // One tensor for all experts, in place of each one's: gate and up in turn, (n_experts, hidden, 2 * ffn), and down,
  // (n_experts, ffn, hidden); where they are quantised the last two dimensions are the other way round. Biases are
  // NAME_bias, (n_experts, 2 * ffn) and (n_experts, hidden).
  std::string_view fused_gate_up = {};
  std::string_view fused_down = {};
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
  double theta = 10000.0;
  double local_theta = 10000.0;  // Positions::kByLayerType: of layers with a window
  std::string_view rope = "{}";  // rope_parameters, where config.json has neither that nor rope_scaling
  double norm_eps = 1e-6;
  bool tied = false;
  bool attention_bias = false;
  double partial_rotary = 1.0;
  double query_pre_attn_scalar = 0.0;  // the scale is this^-1/2; 0: head_dim
  double attention_softcap = 0.0;      // 0: none
  double logit_softcap = 0.0;
  double logit_scale = 1.0;
};

struct Family {
  std::string_view model_type;    // config.json's model_type
  std::string_view architecture;  // the one of config.json's architectures that winnow computes
  // Fields of config.json that this family reads among those that change the mathematics, words with spaces between.
  std::string_view reads = {};
  LayerNames names = {};
  QkNorm qk_norm = QkNorm::kNone;
  bool qk_norm_after_rope = false;
  bool qk_norm_by_config = false;  // only where use_qk_norm is true
  bool qkv_bias_always = false;    // Qwen2: q, k, v have biases whatever config.json says, o has none
  bool o_bias = true;              // whether o has a bias where q, k, v have one by attention_bias
  kernels::NormKind norm = kernels::NormKind::kRms;
  bool norm_plus_one = false;  // norms multiply by 1 + weight
  bool parallel = false;       // attention and MLP both read the layer's input, through one norm
  kernels::Activation activation = kernels::Activation::kSilu;
  bool scaled_embedding = false;  // embeddings times sqrt(hidden)
  Positions positions = Positions::kSame;
  bool none_without_windows = false;  // kNoneOnFull: a model without windows has no positions at all
  bool interleaved_rope = false;      // pairs of a head are neighbours
  bool long_rope_aliases = false;     // "su" and "yarn" are other names of longrope
  NativeWindow native_window = NativeWindow::kNever;
  int64_t full_period = 0;  // kPattern: each so-many-th layer has full attention
  bool full_first = false;  // and it is the first of as many layers, not the last
  ExpertsFamily experts = {};
  FamilyDefaults defaults;

  // Returns whether the positions of a layer follow from whether it has a window.
  bool positions_follow_type() const {
    return positions == Positions::kByLayerType || positions == Positions::kNoneOnFull;
  }
  bool does_read(std::string_view key) const { return has_word(reads, key); }
};

std::span<const Family> families();
const Family* find_family(std::string_view model_type);  // nullptr: unknown

}  // namespace winnow::model
