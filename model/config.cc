#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"
#include "model/families.h"
#include "model/layer_types.h"

namespace winnow::model {

namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxLayers = 10'000;

// Fields that change the mathematics where they are not neutral. Those that none of our families reads in Transformers
// are here too: a checkpoint that sets one was not trained as the family that it names.
struct NeutralField {
  const char* key;
  double neutral;  // the number (false: 0, true: 1) with which the field has no effect
};

constexpr NeutralField kNeutralFields[] = {
    {"rotary_pct", 1},
    {"attention_multiplier", 1},
    {"residual_multiplier", 1},
    {"embedding_multiplier", 1},
    {"logits_scaling", 1},
    {"logit_scale", 1},
    {"is_causal", 1},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"query_pre_attn_scalar", 0},
    {"attention_sinks", 0},
    {"num_attention_sinks", 0},
    {"use_attention_sinks", 0},
    {"use_mrope", 0},
    {"mrope_section", 0},
    {"rope_interleave", 0},
    {"rope_interleaved", 0},
    {"rope_local_base_freq", 0},
    {"no_rope_layers", 0},
    {"no_rope_layer_interval", 0},
    {"layer_rope_theta", 0},
    {"alibi", 0},
    {"use_qk_norm", 0},
    {"use_bias", 0},
    {"clip_qkv", 0},
    {"qk_layernorm", 0},
    {"attention_chunk_size", 0},
    {"attn_temperature_tuning", 0},
    {"dual_chunk_attention_config", 0},
    {"sparse_attention_config", 0},
    {"sliding_window_pattern", 0},
    {"use_bidirectional_attention", 0},
    {"use_parallel_residual", 0},
    {"is_encoder_decoder", 0},
    {"add_cross_attention", 0},
    {"cross_attention_layers", 0},
    {"kv_lora_rank", 0},
    {"num_kv_shared_layers", 0},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"n_routed_experts", 0},
    {"moe_num_experts", 0},
    {"shared_intermediate_size", 0},
    {"swiglu_limit", 0},
    {"per_layer_config", 0},
    {"block_configs", 0},
};

bool is_neutral(const Json& value, double neutral) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return (value.get<bool>() ? 1.0 : 0.0) == neutral;
  if (value.is_number()) return value.get<double>() == neutral;
  return value.empty();  // list or object; a string never is
}

// Other names of quantization_config, which Transformers does not read.
void refuse_other_quantisation(const ConfigFields& fields) {
  for (const char* key : {"quantization", "compression_config"}) {
    if (fields.has(key)) fields.refuse(key, "none, or a quantization_config that says how weights are quantised");
  }
}

// Names of other programs' code, and of heads that are no language model's.
void refuse_other_code(const ConfigFields& fields, std::string_view architecture) {
  // Published checkpoints keep code from before Transformers had the family, under the name that the class got there.
  const Json& auto_map = fields.value("auto_map");
  if (auto_map.is_object() && auto_map.contains("AutoModelForCausalLM")) {
    const Json& code = auto_map["AutoModelForCausalLM"];
    const bool is_named_so = code.is_string() && code.get<std::string>().ends_with("." + std::string(architecture));
    if (!is_named_so) fields.refuse("auto_map", "no code of its own for AutoModelForCausalLM");
  }
  const Json& architectures = fields.value("architectures");
  if (architectures.is_null()) return;
  const bool is_ours = architectures.is_array() &&
                       (architectures.empty() || std::find(architectures.begin(), architectures.end(),
                                                           std::string(architecture)) != architectures.end());
  if (!is_ours) fields.refuse("architectures", "a list with " + quote(architecture));
}

// Gemma's hidden_activation says it, and where that is null its hidden_act does not.
void refuse_activation(const ConfigFields& fields, const Family& family) {
  const bool is_silu = family.activation != kernels::Activation::kGeluTanh;
  const char* key = family.does_read("hidden_activation") ? "hidden_activation" : "hidden_act";
  const char* expected = is_silu ? "silu" : "gelu_pytorch_tanh";
  const std::string name = fields.has(key) || is_silu ? fields.text(key, expected) : expected;
  // Two names of one function in Transformers.
  if (name != expected && !(is_silu && name == "swish")) fields.refuse(key, quote(expected));
  if (family.activation != kernels::Activation::kClampedSwiGlu) return;
  if (fields.number("swiglu_limit", 7.0) != 7.0) fields.refuse("swiglu_limit", "7");
  if (fields.number("swiglu_alpha", 1.702) != 1.702) fields.refuse("swiglu_alpha", "1.702");
}

void refuse_unsupported(const ConfigFields& fields, const Family& family) {
  for (const NeutralField& field : kNeutralFields) {
    if (family.does_read(field.key) || is_neutral(fields.value(field.key), field.neutral)) continue;
    // One expert is an MLP; a family that always has norms of queries and keys says so in some checkpoints.
    const std::string_view key = field.key;
    const bool says_the_same =
        key.ends_with("num_experts") || (key == "use_qk_norm" && family.qk_norm != QkNorm::kNone);
    if (says_the_same && is_neutral(fields.value(field.key), 1)) continue;
    fields.refuse(field.key, "none: it changes the mathematics and winnow does not support it");
  }
  refuse_activation(fields, family);
}

// A model of several towers, of which winnow computes the one for text: its config.json holds that tower's own.
struct Tower {
  std::string_view model_type;
  std::string_view architecture;
  std::string_view text_types;  // model_types of text_config, words; the first is that of one without
};

constexpr std::array<Tower, 3> kTowers = {{{"qwen3_vl", "Qwen3VLForConditionalGeneration", "qwen3_vl_text"},
                                           {"mistral3", "Mistral3ForConditionalGeneration", "mistral ministral3"},
                                           {"gemma3", "Gemma3ForConditionalGeneration", "gemma3_text"}}};

const Tower* find_tower(const std::string& model_type) {
  const auto found = std::ranges::find(kTowers, model_type, &Tower::model_type);
  return found == kTowers.end() ? nullptr : found;
}

// text_config with what the whole config.json says for all towers.
Json text_config(const ConfigFields& whole, const Tower& tower) {
  if (!whole.has("text_config") || !whole.value("text_config").is_object()) {
    whole.refuse("text_config", "an object: the configuration of the text tower");
  }
  Json of_text = whole.value("text_config");
  if (!of_text.contains("model_type")) {
    of_text["model_type"] = std::string(tower.text_types.substr(0, tower.text_types.find(' ')));
  }
  // Transformers ties by the outer field.
  if (whole.has("tie_word_embeddings")) of_text["tie_word_embeddings"] = whole.value("tie_word_embeddings");
  return of_text;
}

const Family& read_family(const ConfigFields& fields, const Tower* tower) {
  const std::string name = fields.text("model_type", "");
  const Family* family = find_family(name);
  if (family != nullptr && (tower == nullptr || has_word(tower->text_types, name))) return *family;
  std::string known;
  const auto add = [&](std::string_view type) { known += (known.empty() ? "" : ", ") + std::string(type); };
  for (const Family& each : families()) {
    if (tower == nullptr || has_word(tower->text_types, each.model_type)) add(each.model_type);
  }
  if (tower == nullptr) {
    for (const Tower& each : kTowers) add(each.model_type);
  }
  fields.refuse("model_type", "one of " + known);
}

void read_dimensions(const ConfigFields& fields, ModelConfig& config) {
  const FamilyDefaults& defaults = config.family->defaults;
  config.n_layers = fields.size("num_hidden_layers", defaults.n_layers);
  if (config.n_layers > kMaxLayers) {
    fields.refuse("num_hidden_layers", "at most " + std::to_string(kMaxLayers));
  }
  config.hidden = fields.size("hidden_size", defaults.hidden);
  config.ffn = fields.size("intermediate_size", defaults.ffn);
  config.vocab = fields.size("vocab_size", defaults.vocab);
  config.max_positions = fields.size("max_position_embeddings", defaults.max_positions);

  kernels::HeadShape& heads = config.heads;
  heads.n_heads = fields.size("num_attention_heads", defaults.n_heads);
  // null is a value of its own in Transformers: as many as there are query heads.
  const bool kv_is_null = !fields.is_absent("num_key_value_heads") && !fields.has("num_key_value_heads");
  heads.n_kv_heads = kv_is_null ? 0 : fields.size("num_key_value_heads", defaults.n_kv_heads);
  if (heads.n_kv_heads == 0) heads.n_kv_heads = heads.n_heads;
  if (heads.n_heads % heads.n_kv_heads != 0) {
    fields.refuse("num_key_value_heads", "a divisor of num_attention_heads = " + std::to_string(heads.n_heads));
  }
  config.experts = read_experts(fields, *config.family, config.n_layers, config.ffn);
  for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers"}) {
    if (config.family->does_read(key) && fields.has(key)) config.n_mtp_layers = fields.integer(key, 0, 0);
  }
  heads.head_dim = fields.has("head_dim") ? fields.size("head_dim", 0) : defaults.head_dim;
  if (heads.head_dim == 0) {
    if (config.hidden % heads.n_heads != 0) {
      fields.refuse("num_attention_heads", "a divisor of hidden_size = " + std::to_string(config.hidden));
    }
    heads.head_dim = config.hidden / heads.n_heads;
  }
  if (heads.head_dim % 2 != 0) {
    fields.refuse("head_dim", "an even number of rotary dimensions, not " + std::to_string(heads.head_dim));
  }
  if (heads.q_dim() > ConfigFields::kMaxSize) {
    fields.refuse("head_dim", "num_attention_heads * head_dim of at most " + std::to_string(ConfigFields::kMaxSize));
  }
}

void read_switches(const ConfigFields& fields, ModelConfig& config) {
  const Family& family = *config.family;
  const FamilyDefaults& defaults = family.defaults;
  const char* eps = family.does_read("layer_norm_eps") ? "layer_norm_eps" : "rms_norm_eps";
  config.norm = {.kind = family.norm,
                 .eps = static_cast<float>(fields.positive(eps, defaults.norm_eps)),
                 .offset = family.norm_plus_one ? 1.F : 0.F};
  config.tied_embeddings = fields.boolean("tie_word_embeddings", defaults.tied);
  const auto reads_true = [&](const char* key, bool fallback) {
    return family.does_read(key) && fields.boolean(key, fallback);
  };
  const bool attention_bias = reads_true("attention_bias", defaults.attention_bias);
  config.qkv_bias = family.qkv_bias_always || attention_bias;
  config.o_bias = family.o_bias ? attention_bias : reads_true("attention_out_bias", false);
  config.mlp_bias = reads_true("mlp_bias", false);
  config.has_qk_norm =
      family.qk_norm != QkNorm::kNone && (!family.qk_norm_by_config || fields.boolean("use_qk_norm", false));
}

// Factors that config.json puts on embeddings, scores, residual stream and logits.
void read_scales(const ConfigFields& fields, ModelConfig& config) {
  const Family& family = *config.family;
  const FamilyDefaults& defaults = family.defaults;
  const auto factor = [&](const char* key, double fallback) {
    return family.does_read(key) ? fields.positive(key, fallback) : fallback;
  };
  // null is a value of its own: no cap.
  const auto cap = [&](const char* key, double fallback) {
    const bool is_null = !fields.is_absent(key) && !fields.has(key);
    return !family.does_read(key) || is_null ? (is_null ? 0.0 : fallback) : fields.positive(key, fallback);
  };
  kernels::HeadShape& heads = config.heads;
  const double scalar = factor("query_pre_attn_scalar", defaults.query_pre_attn_scalar);
  heads.scale = static_cast<float>(1.0 / std::sqrt(scalar > 0.0 ? scalar : static_cast<double>(heads.head_dim)));
  if (family.does_read("attention_multiplier")) heads.scale = static_cast<float>(factor("attention_multiplier", 1.0));
  heads.softcap = static_cast<float>(cap("attn_logit_softcapping", defaults.attention_softcap));
  config.logits.softcap = static_cast<float>(cap("final_logit_softcapping", defaults.logit_softcap));
  config.logits.scale = static_cast<float>(factor("logit_scale", defaults.logit_scale) / factor("logits_scaling", 1.0));
  config.residual_scale = static_cast<float>(factor("residual_multiplier", 1.0));
  config.embedding_scale = static_cast<float>(family.scaled_embedding ? std::sqrt(static_cast<double>(config.hidden))
                                                                      : factor("embedding_multiplier", 1.0));
}

kernels::DType read_dtype(const ConfigFields& fields) {
  // Transformers 5 writes dtype and lets it win; the hub's files have torch_dtype.
  const char* key = fields.has("dtype") ? "dtype" : "torch_dtype";
  // Transformers then takes the type of the weights.
  if (!fields.has(key)) return kernels::DType::kOther;
  std::string name = fields.text(key, "");
  if (name.starts_with("torch.")) name = name.substr(6);
  if (name == "auto") return kernels::DType::kOther;
  if (name == "bfloat16") return kernels::DType::kBf16;
  if (name == "float16" || name == "half") return kernels::DType::kF16;
  if (name == "float32" || name == "float") return kernels::DType::kF32;
  fields.refuse(key, "bfloat16, float16, float32 or auto");
}

}  // namespace

ModelConfig parse_config(const std::string& text, const std::string& origin) {
  const Json json = parse_json(text, origin, JsonDialect::kPython);
  if (!json.is_object()) {
    fail(ExitCode::kBadData, origin + ": expected a JSON object, found " + shown(json));
  }
  const ConfigFields whole(json, origin);
  const Tower* tower = find_tower(whole.text("model_type", ""));
  const Json of_text = tower == nullptr ? json : text_config(whole, *tower);
  const ConfigFields fields(of_text, origin, tower == nullptr ? "" : "text_config.");
  ModelConfig config;
  config.family = &read_family(fields, tower);
  config.model_type = whole.text("model_type", "");
  config.text = text;
  if (!whole.has("quantization_config")) refuse_other_quantisation(whole);
  refuse_other_code(whole, tower == nullptr ? config.family->architecture : tower->architecture);
  refuse_unsupported(fields, *config.family);
  read_dimensions(fields, config);
  read_switches(fields, config);
  read_scales(fields, config);
  config.checkpoint_dtype = read_dtype(fields);
  if (tower != nullptr && config.checkpoint_dtype == kernels::DType::kOther)
    config.checkpoint_dtype = read_dtype(whole);
  config.quantization = quantization::parse_scheme(whole);
  read_native_window(fields, config);
  read_positions(fields, config);
  return config;
}

int64_t ModelConfig::mean_active_ffn() const {
  int64_t total = 0;
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    total += experts.of_layer(layer) ? experts.router.top_k * experts.ffn + experts.shared_ffn : ffn;
  }
  return total / n_layers;
}

ModelConfig read_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  return parse_config(read_text(path, kMaxConfigBytes), path.string());
}

}  // namespace winnow::model
