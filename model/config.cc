#include "model/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"
#include "model/families.h"

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
    {"partial_rotary_factor", 1},
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
    {"alibi", 0},
    {"use_qk_norm", 0},
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
void refuse_other_code(const ConfigFields& fields, const Family& family) {
  const Json& auto_map = fields.value("auto_map");
  if (auto_map.is_object() && auto_map.contains("AutoModelForCausalLM")) {
    fields.refuse("auto_map", "no code of its own for AutoModelForCausalLM");
  }
  const Json& architectures = fields.value("architectures");
  if (architectures.is_null()) return;
  const bool is_ours = architectures.is_array() &&
                       (architectures.empty() || std::find(architectures.begin(), architectures.end(),
                                                           std::string(family.architecture)) != architectures.end());
  if (!is_ours) fields.refuse("architectures", "a list with " + quote(family.architecture));
}

void refuse_unsupported(const ConfigFields& fields, const Family& family) {
  if (!fields.has("quantization_config")) refuse_other_quantisation(fields);
  refuse_other_code(fields, family);
  for (const NeutralField& field : kNeutralFields) {
    if (is_neutral(fields.value(field.key), field.neutral)) continue;
    fields.refuse(field.key, "none: it changes the mathematics and winnow does not support it");
  }
  // Two names of one function in Transformers.
  const std::string activation = fields.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") fields.refuse("hidden_act", "\"silu\"");
}

const Family& read_family(const ConfigFields& fields) {
  const Family* family = find_family(fields.text("model_type", ""));
  if (family == nullptr) {
    std::string known;
    for (const Family& each : families()) known += (known.empty() ? "" : ", ") + std::string(each.model_type);
    fields.refuse("model_type", "one of " + known);
  }
  return *family;
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
  heads.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads.head_dim)));
}

void read_switches(const ConfigFields& fields, ModelConfig& config) {
  const Family& family = *config.family;
  config.rms_eps = static_cast<float>(fields.positive("rms_norm_eps", 1e-6));
  config.tied_embeddings = fields.boolean("tie_word_embeddings", false);
  config.qk_norm = family.qk_norm;
  const bool attention_bias = family.reads_attention_bias && fields.boolean("attention_bias", false);
  config.qkv_bias = family.qkv_bias_always || attention_bias;
  config.o_bias = attention_bias;
  config.mlp_bias = family.reads_mlp_bias && fields.boolean("mlp_bias", false);
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

void read_llama3(const ConfigFields& fields, const ConfigFields& table, RopeConfig& rope, int64_t max_positions) {
  rope.type = RopeConfig::Type::kLlama3;
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"}) {
    if (!table.has(key)) table.refuse(key, "a number > 0: rope type llama3 needs it");
  }
  rope.factor = table.positive("factor", 0);
  rope.low_freq_factor = table.positive("low_freq_factor", 0);
  rope.high_freq_factor = table.positive("high_freq_factor", 0);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    table.refuse("high_freq_factor", "more than low_freq_factor");
  }
  // Transformers lets the field at top level win, and falls back to max_position_embeddings.
  const char* key = "original_max_position_embeddings";
  rope.original_max_position = fields.has(key) ? fields.size(key, 0) : table.size(key, max_positions);
}

// Both dialects: the hub's rope_theta and rope_scaling at top level, Transformers 5's rope_parameters with both. The
// precedence is that of Transformers' convert_rope_params_to_dict.
RopeConfig read_rope(const ConfigFields& fields, int64_t max_positions) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (fields.has(key) && !fields.value(key).is_object()) fields.refuse(key, "an object or null");
  }
  const bool is_hub = fields.has("rope_scaling") && !fields.value("rope_scaling").empty();
  const char* key = is_hub ? "rope_scaling" : "rope_parameters";
  const Json object = fields.has(key) ? fields.value(key) : Json::object();
  const ConfigFields table(object, fields.origin(), std::string(key) + ".");
  for (const auto& [name, value] : object.items()) {
    if (value.is_object()) table.refuse(name.c_str(), "no table of its own for a type of layer");
  }
  for (const char* name : {"partial_rotary_factor", "mrope_section", "llama_4_scaling_beta"}) {
    if (is_neutral(table.value(name), 1.0)) continue;
    table.refuse(name, "none: it changes the mathematics and winnow does not support it");
  }

  RopeConfig rope;
  rope.theta = table.has("rope_theta") ? table.positive("rope_theta", 0) : fields.positive("rope_theta", rope.theta);
  const char* type_key = table.has("rope_type") || !table.has("type") ? "rope_type" : "type";
  const std::string type = table.has(type_key) ? table.text(type_key, "") : "default";
  if (type == "linear") {
    rope.type = RopeConfig::Type::kLinear;
    if (!table.has("factor")) table.refuse("factor", "a number > 0: rope type linear needs it");
    rope.factor = table.positive("factor", 0);
  } else if (type == "llama3") {
    read_llama3(fields, table, rope, max_positions);
  } else if (type != "default") {
    table.refuse(type_key, "default, linear or llama3");
  }
  return rope;
}

// layer_types, or empty where config.json has none: true for a sliding layer.
std::vector<bool> read_layer_types(const ConfigFields& fields, int64_t n_layers) {
  std::vector<bool> sliding;
  if (!fields.has("layer_types")) return sliding;
  const Json& types = fields.value("layer_types");
  const std::string expected = "a list of " + std::to_string(n_layers) + " names, full_attention or sliding_attention";
  if (!types.is_array() || types.size() != static_cast<std::size_t>(n_layers)) fields.refuse("layer_types", expected);
  for (const Json& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      fields.refuse("layer_types", expected + " (" + shown(type) + " is neither)");
    }
    sliding.push_back(type == "sliding_attention");
  }
  return sliding;
}

std::vector<bool> qwen_window_layers(const ConfigFields& fields, const ModelConfig& config, bool is_on) {
  const int64_t first = fields.integer("max_window_layers", config.family->defaults.max_window_layers, 0);
  std::vector<bool> layers = read_layer_types(fields, config.n_layers);
  if (layers.empty()) {
    layers.assign(static_cast<std::size_t>(config.n_layers), false);
    for (int64_t i = first; is_on && i < config.n_layers; ++i) layers[static_cast<std::size_t>(i)] = true;
  }
  if (!is_on && std::ranges::find(layers, true) != layers.end()) {
    fields.refuse("layer_types", "no sliding_attention where use_sliding_window or sliding_window is off");
  }
  return layers;
}

// The window that Transformers itself applies to this checkpoint, layer by layer.
void read_native_window(const ConfigFields& fields, ModelConfig& config) {
  const NativeWindow rule = config.family->native_window;
  const bool is_null = !fields.is_absent("sliding_window") && !fields.has("sliding_window");
  bool is_on = rule != NativeWindow::kNever && !is_null;
  int64_t window = 0;
  if (is_on) window = fields.size("sliding_window", config.family->defaults.sliding_window);
  std::vector<bool> layers;
  if (rule == NativeWindow::kByLayer) {
    is_on = fields.boolean("use_sliding_window", false) && is_on;
    layers = qwen_window_layers(fields, config, is_on);
  } else {
    layers.assign(static_cast<std::size_t>(config.n_layers), is_on);
    // Transformers ignores layer_types in these families, other engines do not: it must say the same.
    const std::vector<bool> stated = read_layer_types(fields, config.n_layers);
    if (!stated.empty() && stated != layers) {
      fields.refuse("layer_types", is_on ? "sliding_attention in every layer, as Transformers applies sliding_window"
                                         : "full_attention in every layer, as Transformers runs this model");
    }
  }
  if (std::ranges::find(layers, true) == layers.end()) return;
  config.native_window = window;
  config.native_window_layers = std::move(layers);
}

}  // namespace

ModelConfig parse_config(const std::string& text, const std::string& origin) {
  const Json json = parse_json(text, origin, JsonDialect::kPython);
  if (!json.is_object()) {
    fail(ExitCode::kBadData, origin + ": expected a JSON object, found " + shown(json));
  }
  const ConfigFields fields(json, origin);
  ModelConfig config;
  config.family = &read_family(fields);
  config.model_type = config.family->model_type;
  config.text = text;
  refuse_unsupported(fields, *config.family);
  read_dimensions(fields, config);
  read_switches(fields, config);
  config.checkpoint_dtype = read_dtype(fields);
  config.quantization = quantization::parse_scheme(fields);
  config.rope = read_rope(fields, config.max_positions);
  read_native_window(fields, config);
  return config;
}

ModelConfig read_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  return parse_config(read_text(path, kMaxConfigBytes), path.string());
}

}  // namespace winnow::model
