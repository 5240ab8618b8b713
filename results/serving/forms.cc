#include "results/serving/forms.h"

#include <array>
#include <cmath>
#include <utility>

#include "base/json.h"

namespace winnow::serving {
namespace {

// exp(-1e4) is 0 in every type, and -1e4 a number in each.
constexpr float kNoSink = -1e4F;

bool is_given(const Json& config, const char* key) { return config.contains(key) && !config[key].is_null(); }

// Families whose windowed layers have positions of their own, and of how many layers one has full attention.
int64_t period_of_positions(const std::string& model_type) {
  if (model_type == "gemma3_text") return 6;
  const bool is_one = model_type == "olmo3" || model_type == "exaone4" || model_type == "cohere2";
  return is_one ? 4 : 0;
}

// A layer of these that changes its kind changes its positions: right where it was measured so, by Transformers' rule.
void refuse_other_positions(const Request& request) {
  const int64_t usual_period = period_of_positions(request.model_type);
  if (usual_period == 0 || request.selection.positions == selection::kByType) return;
  const Json wanted = request.layer_types();
  Json own = Json::array();
  if (request.config.contains("layer_types") && request.config["layer_types"].is_array()) {
    own = request.config["layer_types"];
  } else {
    const auto field = request.config.find("sliding_window_pattern");
    const bool is_set = field != request.config.end() && !field->is_null();
    if (is_set && !field->is_number_integer()) {
      request.refuse("sliding_window_pattern: expected a whole number, found " + shown(*field));
    }
    const int64_t period = is_set ? field->get<int64_t>() : usual_period;
    for (int64_t layer = 1; layer <= request.selection.n_layers; ++layer) {
      own.push_back(period > 0 && layer % period == 0 ? "full_attention" : "sliding_attention");
    }
  }
  for (std::size_t layer = 0; layer < wanted.size(); ++layer) {
    if (layer < own.size() && own[layer] == wanted[layer]) continue;
    request.refuse("layer " + std::to_string(layer) + " of a " + request.model_type +
                   " would change between full and local attention, and with it its rotary embedding: another model "
                   "than the one that was measured; measure with --target hf");
  }
}

// Where config.json leaves a field out, the other family's default may differ from its own.
void write_defaults(const Request& request, const ModelShape& shape, Json& patch) {
  const std::array<std::pair<const char*, int64_t>, 8> sizes = {{{"vocab_size", shape.vocab},
                                                                 {"hidden_size", shape.hidden},
                                                                 {"intermediate_size", shape.ffn},
                                                                 {"num_hidden_layers", shape.n_layers},
                                                                 {"num_attention_heads", shape.n_heads},
                                                                 {"num_key_value_heads", shape.n_kv_heads},
                                                                 {"head_dim", shape.head_dim},
                                                                 {"max_position_embeddings", shape.max_positions}}};
  for (const auto& [key, value] : sizes) {
    if (!is_given(request.config, key)) patch[key] = value;
  }
  if (!is_given(request.config, "rms_norm_eps")) patch["rms_norm_eps"] = shape.norm_eps;
  if (!is_given(request.config, "tie_word_embeddings")) patch["tie_word_embeddings"] = shape.tied_embeddings;
}

// The rotary embedding of all layers as Transformers 5 has it, from either dialect.
Json rope_parameters(const Request& request, const ModelShape& shape) {
  Json rope = Json::object();
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (request.config.contains(key) && request.config[key].is_object()) {
      rope = request.config[key];
      break;
    }
  }
  if (!rope.contains("rope_type")) rope["rope_type"] = rope.value("type", Json("default"));
  rope.erase("type");
  if (!rope.contains("rope_theta")) rope["rope_theta"] = shape.rope_theta;
  return rope;
}

void write_layer_types(const Request& request, Json& patch) {
  // A window that no layer has is not named, so that no reader takes it for that of all.
  patch["sliding_window"] = request.n_windowed() > 0 ? Json(request.one_window()) : Json(nullptr);
  patch["layer_types"] = request.layer_types();
}

void name_family(FormOfModel& form, const char* model_type, const char* architecture) {
  form.served_as = model_type;
  form.patch["architectures"] = {architecture};
  form.patch["model_type"] = model_type;
}

void make_ministral(const Request& request, FormOfModel& form) {
  const ModelShape shape = request.source.shape();
  name_family(form, "ministral", "MinistralForCausalLM");
  write_defaults(request, shape, form.patch);
}

void make_rope_of_types(const Request& request, const ModelShape& shape, FormOfModel& form) {
  const Json rope = rope_parameters(request, shape);
  form.patch["rope_parameters"] = {{"full_attention", rope}, {"sliding_attention", rope}};
  form.dropped.insert(form.dropped.end(), {"rope_theta", "rope_scaling"});
}

void make_olmo3(const Request& request, FormOfModel& form) {
  const ModelShape shape = request.source.shape();
  name_family(form, "olmo3", "Olmo3ForCausalLM");
  write_defaults(request, shape, form.patch);
  make_rope_of_types(request, shape, form);
}

void make_mellum(const Request& request, FormOfModel& form, bool has_one_expert) {
  const ModelShape shape = request.source.shape();
  const bool is_dense = shape.n_experts == 0;
  name_family(form, "mellum", "MellumForCausalLM");
  write_defaults(request, shape, form.patch);
  form.patch["attention_bias"] = shape.qkv_bias;
  form.patch["num_experts"] = is_dense ? 1 : shape.n_experts;
  form.patch["num_experts_per_tok"] = is_dense ? 1 : shape.top_k;
  form.patch["moe_intermediate_size"] = is_dense ? shape.ffn : shape.expert_ffn;
  form.patch["norm_topk_prob"] = is_dense || shape.normalised_experts;
  form.patch["mlp_layer_types"] = Json::array();
  for (int64_t layer = 0; layer < shape.n_layers; ++layer) {
    const bool has_experts = is_dense ? has_one_expert : shape.expert_layers[static_cast<std::size_t>(layer)];
    form.patch["mlp_layer_types"].push_back(has_experts ? "sparse" : "dense");
  }
  form.dropped = {"use_sliding_window", "max_window_layers", "decoder_sparse_step", "mlp_only_layers",
                  "num_local_experts"};
  make_rope_of_types(request, shape, form);
  if (!has_one_expert) return;
  for (int64_t layer = 0; layer < shape.n_layers; ++layer) {
    // One expert has the weight 1 whatever its logit is.
    form.weights.added.push_back({"layers." + std::to_string(layer) + ".mlp.gate.weight", {1, shape.hidden}, 0.F});
  }
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    form.weights.renamed.push_back({".mlp." + std::string(part) + ".", ".mlp.experts.0." + std::string(part) + "."});
  }
}

// A family with a bias on q, k, v and output together is given one of zeros where the output has none.
void add_output_biases(const Request& request, const ModelShape& shape, FormOfModel& form) {
  if (shape.o_bias && !shape.qkv_bias) {
    request.refuse("its attention has a bias on its output alone, which a " + form.served_as + " has not");
  }
  form.patch["attention_bias"] = shape.qkv_bias;
  form.patch["mlp_bias"] = shape.mlp_bias;
  form.dropped.insert(form.dropped.end(), {"use_sliding_window", "max_window_layers", "attention_out_bias"});
  if (!shape.qkv_bias || shape.o_bias) return;
  for (int64_t layer = 0; layer < shape.n_layers; ++layer) {
    form.weights.added.push_back({"layers." + std::to_string(layer) + ".self_attn.o_proj.bias", {shape.hidden}, 0.F});
  }
}

void make_llama(const Request& request, FormOfModel& form) {
  const ModelShape shape = request.source.shape();
  name_family(form, "llama", "LlamaForCausalLM");
  write_defaults(request, shape, form.patch);
  add_output_biases(request, shape, form);
}

void make_granite_swa(const Request& request, FormOfModel& form) {
  const ModelShape shape = request.source.shape();
  name_family(form, "granite_swa", "GraniteSWAForCausalLM");
  write_defaults(request, shape, form.patch);
  if (request.model_type != "granite") {
    form.patch["attention_multiplier"] = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
    for (const char* key : {"embedding_multiplier", "residual_multiplier", "logits_scaling"}) form.patch[key] = 1.0;
  }
  add_output_biases(request, shape, form);
  const Json rope = rope_parameters(request, shape);
  form.patch["layer_rope_theta"] = Json::array();
  for (int64_t layer = 0; layer < shape.n_layers; ++layer) {
    form.patch["layer_rope_theta"].push_back(rope["rope_theta"]);
    form.weights.added.push_back({"layers." + std::to_string(layer) + ".self_attn.sinks", {shape.n_heads}, kNoSink});
  }
}

// Fields at the top of config.json, for readers that do not know rope_parameters.
void make_top_level_rope(const Request& request, Json& patch) {
  const Json rope = rope_parameters(request, request.source.shape());
  patch["rope_theta"] = rope["rope_theta"];
  if (rope["rope_type"] != "default") patch["rope_scaling"] = rope;
}

void make_exclusive(const Request& request, Json& patch) {
  const int64_t keys = request.one_window() - 1;
  if (keys < 1) request.refuse("its windowed layers see 1 key, the row itself, and a window of 0 means none there");
  patch["sliding_window"] = keys;
  patch["is_hybrid_swa"] = true;
  patch["hybrid_layer_pattern"] = Json::array();
  for (const evaluation::ServedWindow& window : request.windows) {
    patch["hybrid_layer_pattern"].push_back(window.is_windowed() ? 1 : 0);
  }
}

void make_layer_windows(const Request& request, Json& patch) {
  patch["layer_windows"] = Json::array();
  int64_t widest = 0;
  for (const evaluation::ServedWindow& window : request.windows) {
    patch["layer_windows"].push_back(window.is_windowed() ? Json(window.keys) : Json(nullptr));
    if (window.is_windowed()) widest = std::max(widest, window.keys);
  }
  patch["sliding_window"] = widest > 0 ? Json(widest) : Json(nullptr);
  patch["layer_types"] = request.layer_types();
}

bool has_window_switch(const Request& request) {
  return request.model_type == "qwen2" || request.model_type == "qwen3" || request.model_type == "smollm3";
}

}  // namespace

FormOfModel make_form(const Request& request, Form form) {
  FormOfModel made{.served_as = request.model_type};
  if (form == Form::kList || form == Form::kSettings) return made;
  refuse_other_positions(request);
  if (form == Form::kMinistral) make_ministral(request, made);
  if (form == Form::kLlama) make_llama(request, made);
  if (form == Form::kOlmo3) make_olmo3(request, made);
  if (form == Form::kMellum || form == Form::kOneExpertMellum) {
    make_mellum(request, made, form == Form::kOneExpertMellum);
  }
  if (form == Form::kGraniteSwa) make_granite_swa(request, made);
  if (made.served_as == request.model_type && has_window_switch(request)) {
    // Without the switch Transformers drops the window silently; max_window_layers it ignores beside layer_types, and
    // vLLM wants it equal to the number of layers.
    made.patch["use_sliding_window"] = true;
    if (request.model_type != "smollm3") made.patch["max_window_layers"] = request.selection.n_layers;
  }
  if (form == Form::kLayerWindows) {
    make_layer_windows(request, made.patch);
    return made;
  }
  write_layer_types(request, made.patch);
  if (form == Form::kTopLevelRope || form == Form::kLlama) make_top_level_rope(request, made.patch);
  if (form == Form::kExclusive) make_exclusive(request, made.patch);
  return made;
}

FormOfModel full_form(const Request& request) {
  FormOfModel made{.served_as = request.model_type};
  if (request.config.contains("sliding_window")) made.patch["sliding_window"] = nullptr;
  if (request.config.contains("use_sliding_window")) made.patch["use_sliding_window"] = false;
  made.dropped = {"layer_types"};
  return made;
}

void untie_output(const Request& request, FormOfModel& form) {
  if (!request.source.shape().tied_embeddings) return;
  form.patch["tie_word_embeddings"] = false;
  form.weights.copied.push_back({"embed_tokens.weight", "lm_head.weight"});
}

Json changed_config(const Json& config, const FormOfModel& form) {
  Json result = config;
  for (const std::string& key : form.dropped) result.erase(key);
  for (const auto& [key, value] : form.patch.items()) result[key] = value;
  return result;
}

}  // namespace winnow::serving
