#include "results/selection/export.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/json_values.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "results/selection/methods.h"

namespace winnow::selection {
namespace {

// How an engine gives single layers of a family a window.
enum class Way {
  kUnknown,
  kLayerTypes,        // config.json's layer_types and sliding_window, as the family is
  kQwenLayerTypes,    // the same behind the switch use_sliding_window
  kAsMinistral,       // as a Ministral, which has the same weights and honours layer_types
  kTransformersImpl,  // vLLM: only in its Transformers backend
  kByList,            // a list that the caller gives
  kRefused,
};

// One family, as its engines treat it.
struct FamilyRule {
  const char* model_type;
  Way hf;
  Way vllm;
  bool swaa;  // SWAA patches it
};

constexpr std::array<FamilyRule, 11> kFamilyRules = {{
    {"qwen3", Way::kQwenLayerTypes, Way::kTransformersImpl, true},
    {"qwen2", Way::kQwenLayerTypes, Way::kTransformersImpl, true},
    {"llama", Way::kAsMinistral, Way::kLayerTypes, true},
    {"mistral", Way::kAsMinistral, Way::kLayerTypes, false},
    {"ministral", Way::kLayerTypes, Way::kTransformersImpl, false},
    {"gemma2", Way::kLayerTypes, Way::kLayerTypes, false},
    {"gemma3_text", Way::kLayerTypes, Way::kLayerTypes, false},
    {"olmo3", Way::kLayerTypes, Way::kUnknown, false},
    {"exaone4", Way::kLayerTypes, Way::kUnknown, false},
    {"cohere2", Way::kLayerTypes, Way::kUnknown, false},
    {"qwen3_moe", Way::kRefused, Way::kRefused, true},
}};

std::string engine_name(const std::string& target) {
  if (target == "hf") return "Transformers";
  if (target == "vllm") return "vLLM";
  return target == "trtllm" ? "TensorRT-LLM" : "SWAA";
}

struct Context {
  const Selection& selection;
  const ExportOptions& options;
  const Json& config;
  const std::string& origin;
  std::string model_type;
  FamilyRule rule{"", Way::kUnknown, Way::kUnknown, false};
  std::vector<evaluation::ServedWindow> windows{};  // (n_layers)

  [[noreturn]] void refuse(const std::string& why) const {
    fail(ExitCode::kBadData, origin + ": cannot be exported to " + options.target + ": " + why);
  }
  bool is_true(const char* key) const { return config.contains(key) && config[key].is_boolean() && config[key]; }

  // Returns the keys of the windowed layers, for an engine that has one number for all of them; refuses several.
  int64_t one_window() const {
    std::optional<int64_t> keys;
    for (const evaluation::ServedWindow& window : windows) {
      if (!window.is_windowed()) continue;
      if (keys.value_or(window.keys) != window.keys) {
        refuse("its windowed layers see " + std::to_string(*keys) + " and " + std::to_string(window.keys) +
               " keys, and " + engine_name(options.target) + " has one window for all of them");
      }
      keys = window.keys;
    }
    return keys.value_or(selection.window_keys);
  }
};

Json layer_types(const Context& context) {
  Json types = Json::array();
  for (const evaluation::ServedWindow& window : context.windows) {
    types.push_back(window.is_windowed() ? "sliding_attention" : "full_attention");
  }
  return types;
}

// Families whose windowed layers have positions of their own, and of how many layers one has full attention.
int64_t period_of_positions(const std::string& model_type) {
  if (model_type == "gemma3_text") return 6;
  const bool is_one = model_type == "olmo3" || model_type == "exaone4" || model_type == "cohere2";
  return is_one ? 4 : 0;
}

// A layer of these that changes its kind changes its positions: right where it was measured so, by Transformers' rule.
void refuse_other_positions(const Context& context) {
  const int64_t usual_period = period_of_positions(context.model_type);
  if (usual_period == 0 || context.selection.positions == kByType) return;
  const Json wanted = layer_types(context);
  Json own = Json::array();
  if (context.config.contains("layer_types") && context.config["layer_types"].is_array()) {
    own = context.config["layer_types"];
  } else {
    const auto field = context.config.find("sliding_window_pattern");
    const bool is_given = field != context.config.end() && !field->is_null();
    if (is_given && !field->is_number_integer()) {
      context.refuse("sliding_window_pattern: expected a whole number, found " + shown(*field));
    }
    const int64_t period = is_given ? field->get<int64_t>() : usual_period;
    for (int64_t layer = 1; layer <= context.selection.n_layers; ++layer) {
      own.push_back(period > 0 && layer % period == 0 ? "full_attention" : "sliding_attention");
    }
  }
  for (std::size_t layer = 0; layer < wanted.size(); ++layer) {
    if (layer < own.size() && own[layer] == wanted[layer]) continue;
    context.refuse("layer " + std::to_string(layer) + " of a " + context.model_type +
                   " would change between full and local attention, and with it its rotary embedding: another model "
                   "than the one that was measured; measure with --target hf");
  }
}

// ---- Transformers ---------------------------------------------------------------------------------------------------

// What config.json of a Llama or Mistral must say to be read as a Ministral with the same weights: where it leaves a
// field out, Ministral's default may differ from its own.
void make_ministral(const Context& context, Json& patch) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (!context.is_true(key)) continue;
    context.refuse(std::string(key) +
                   " is true, which Transformers' only windowed model with these weights, "
                   "Ministral, does not have; use --target swaa, or vllm");
  }
  const bool is_llama = context.model_type == "llama";
  const std::array<std::pair<const char*, int64_t>, 6> llama_defaults = {{{"vocab_size", 32000},
                                                                          {"hidden_size", 4096},
                                                                          {"intermediate_size", 11008},
                                                                          {"num_hidden_layers", 32},
                                                                          {"num_attention_heads", 32},
                                                                          {"max_position_embeddings", 2048}}};
  patch["architectures"] = {"MinistralForCausalLM"};
  patch["model_type"] = "ministral";
  const auto integer = [&](const char* key, int64_t fallback) {
    const auto found = context.config.find(key);
    return found != context.config.end() && found->is_number_integer() ? found->get<int64_t>() : fallback;
  };
  for (const auto& [key, value] : llama_defaults) {
    if (is_llama && !context.config.contains(key)) patch[key] = value;
  }
  const int64_t n_heads = std::max<int64_t>(integer("num_attention_heads", 32), 1);
  if (integer("num_key_value_heads", 0) == 0) patch["num_key_value_heads"] = is_llama ? n_heads : 8;
  if (integer("head_dim", 0) == 0) patch["head_dim"] = integer("hidden_size", 4096) / n_heads;
}

// The fields of config.json that make the windows. `way` is the engine's.
Json config_patch(const Context& context, Way way) {
  Json patch = Json::object();
  if (way == Way::kAsMinistral) make_ministral(context, patch);
  if (way == Way::kQwenLayerTypes || way == Way::kTransformersImpl) {
    // Without the switch Transformers drops the window silently; max_window_layers it ignores beside layer_types, and
    // vLLM wants it equal to the number of layers.
    if (context.model_type != "ministral") {
      patch["use_sliding_window"] = true;
      patch["max_window_layers"] = context.selection.n_layers;
    }
  }
  refuse_other_positions(context);
  patch["sliding_window"] = context.one_window();
  patch["layer_types"] = layer_types(context);
  return patch;
}

Json patched(const Json& config, const Json& patch) {
  Json result = config;
  for (const auto& [key, value] : patch.items()) result[key] = value;
  return result;
}

void plan_hf(const Context& context, ExportPlan& plan) {
  const Json patch = config_patch(context, context.rule.hf);
  plan.files.push_back({"config.json", python_json(patched(context.config, patch)) + "\n"});
  plan.files.push_back({"config_patch.json", json_text(patch, 2) + "\n"});
  plan.links_checkpoint = true;
  plan.is_checked_in_transformers = true;
  plan.command = "transformers.AutoModelForCausalLM.from_pretrained(\".\")";
  if (context.rule.hf == Way::kAsMinistral) {
    plan.warnings.push_back("written as a Ministral, since Transformers gives a " + context.model_type +
                            " no window per layer: same weights and figures, but needs Transformers 5");
  }
}

// ---- vLLM -----------------------------------------------------------------------------------------------------------

void plan_vllm(const Context& context, ExportPlan& plan) {
  const std::string& impl = context.options.model_impl;
  const bool needs_transformers = context.rule.vllm == Way::kTransformersImpl;
  if (needs_transformers && impl == "vllm") {
    context.refuse("vLLM's own " + context.model_type +
                   " has no window per layer and would run full attention everywhere; leave out --model-impl vllm");
  }
  const bool uses_transformers = needs_transformers || impl == "transformers";
  if (uses_transformers && context.rule.hf == Way::kAsMinistral) {
    context.refuse("Transformers gives a " + context.model_type +
                   " no window per layer, vLLM's own does; leave out --model-impl transformers");
  }
  const Json overrides = config_patch(context, context.rule.vllm);
  const std::string serve =
      "vllm serve " + shell_word(context.options.model_path) + " --hf-overrides " +
      shell_word(json_text(overrides, -1)) +
      (uses_transformers ? " --model-impl transformers" : (impl == "vllm" ? " --model-impl vllm" : ""));
  plan.files.push_back({kOverridesFile, json_text(overrides, 2) + "\n"});
  plan.files.push_back(
      {"serve.sh", "#!/bin/sh\n# Further flags of vLLM may follow.\nexec " + serve + " \"$@\"\n", true});
  plan.is_checked_in_transformers = uses_transformers;
  plan.command = "./serve.sh";
  const std::string padding = hybrid_padding_note(context.selection.keep, context.selection.n_layers);
  if (!padding.empty()) plan.warnings.push_back(padding);
  if (context.selection.keep > 0 && context.selection.keep < context.selection.n_layers) {
    plan.warnings.emplace_back(
        "do not give --disable-hybrid-kv-cache-manager: releases before August 2026 then window the full layers, too");
  }
}

// ---- TensorRT-LLM, SWAA ---------------------------------------------------------------------------------------------

void plan_trtllm(const Context& context, ExportPlan& plan) {
  int64_t max_seq_len = 0;
  if (context.options.max_seq_len) {
    max_seq_len = *context.options.max_seq_len;
  } else if (context.config.contains("max_position_embeddings") &&
             context.config["max_position_embeddings"].is_number_integer()) {
    max_seq_len = context.config["max_position_embeddings"].get<int64_t>();
  } else {
    context.refuse("config.json has no max_position_embeddings; give --max-seq-len");
  }
  Json windows = Json::array();
  for (const evaluation::ServedWindow& window : plan.windows) windows.push_back(std::min(window.keys, max_seq_len));
  plan.files.push_back(
      {"llm_api_options.yaml", "# Keys that each layer holds; " + std::to_string(max_seq_len) +
                                   " is full attention. From the first layer to the last.\nmax_seq_len: " +
                                   std::to_string(max_seq_len) + "\nkv_cache_config:\n  enable_block_reuse: false\n" +
                                   "  max_attention_window: " + json_text(windows, -1) + "\n"});
  plan.files.push_back({"serve.sh",
                        "#!/bin/sh\n# Further flags of trtllm-serve may follow.\nexec trtllm-serve " +
                            shell_word(context.options.model_path) +
                            " --extra_llm_api_options \"$(dirname \"$0\")/llm_api_options.yaml\" \"$@\"\n",
                        true});
  plan.command = "./serve.sh";
  const bool has_windows = context.model_type.rfind("gemma", 0) == 0;
  if (!has_windows && context.selection.tail_rows != 0) {
    plan.warnings.push_back(
        "TensorRT-LLM limits the KV cache by this list, but a " + context.model_type +
        " has no window of its own there, so its prefill masks nothing (issue 11244): full "
        "attention over the prompt, windows in decoding; measure that with calibrate --tail-rows 0");
  }
}

void plan_swaa(const Context& context, ExportPlan& plan) {
  if (!context.rule.swaa) {
    context.refuse("SWAA patches Qwen3, Qwen2, Qwen3-MoE and Llama, not " + context.model_type);
  }
  const Selection& s = context.selection;
  // SWAA counts the window as each of its engines does: measured for its vLLM, the given number makes one key more.
  const int64_t size = context.one_window() - (s.target == "swaa-vllm" ? 1 : 0);
  const Json setting = {{"swaa_config",
                         {{"sliding_window_size", size},
                          {"keep_first", s.sinks},
                          {"force_fa_decode", s.decode == "full"},
                          {"non_sliding_layers", s.layers}}},
                        {"model_list", Json::array({to_utf8(context.options.model_path)})}};
  plan.files.push_back({"swaa_settings.json", json_text(Json::array({setting}), 2) + "\n"});
  plan.command =
      "SWAAConfig(**setting[\"swaa_config\"]) for each setting of swaa_settings.json, as its eval_swaa.py does";
  if (s.target != "swaa-vllm") {
    plan.warnings.push_back("SWAA's vLLM sees " + std::to_string(size + 1) +
                            " keys with this window, its Transformers " + std::to_string(size) +
                            "; measure with --target swaa-vllm to serve it there");
  }
}

// Whether the checkpoint windows that layer itself, as Transformers applies it. Qwen says so for each layer, by a list
// or by the first one; without either its default is 28.
bool has_own_window(const Context& context, int64_t layer) {
  const Json& config = context.config;
  if (!config.contains("sliding_window") || !config["sliding_window"].is_number()) return false;
  if (config.contains("use_sliding_window") && !context.is_true("use_sliding_window")) return false;
  if (context.rule.hf == Way::kAsMinistral) return true;
  const auto index = static_cast<std::size_t>(layer);
  if (config.contains("layer_types") && config["layer_types"].is_array()) {
    return index < config["layer_types"].size() && config["layer_types"][index] == "sliding_attention";
  }
  if (context.rule.hf != Way::kQwenLayerTypes) return true;
  const Json first = config.value("max_window_layers", Json());
  return layer >= (first.is_number_integer() ? first.get<int64_t>() : 28);
}

// ---- all engines ----------------------------------------------------------------------------------------------------

// Where the engine's window rules are not those that the selection was measured with.
void warn_of_semantics(const Context& context, ExportPlan& plan) {
  const Selection& s = context.selection;
  if (plan.target == "json") return;
  const std::string engine = engine_name(plan.target);
  const auto warn = [&](const std::string& text) { plan.warnings.push_back("measured " + text); };
  const bool has_sinks = plan.target == "swaa";
  if (s.sinks > 0 && !has_sinks) {
    warn("with " + std::to_string(s.sinks) + " sink tokens, which " + engine +
         " does not keep; calibrate with --target " + plan.target);
  }
  if (s.decode == "full" && !has_sinks) {
    warn("with full attention for answer rows, which " + engine + " windows like all others; calibrate with --target " +
         plan.target);
  }
  // TensorRT-LLM's rule is that of tail rows 0 where the model has no window of its own: warned about there.
  if (s.tail_rows >= 0 && plan.target != "trtllm") {
    warn("with windows on the last " + std::to_string(s.tail_rows) + " prompt rows only (--tail-rows), " + engine +
         " windows all rows; verify with winnow evaluate");
  }
  if (s.window_keys != s.window && plan.target != "swaa") {
    warn("for swaa-vllm, where a window of " + std::to_string(s.window) + " sees " + std::to_string(s.window_keys) +
         " keys; the export asks for " + std::to_string(s.window_keys));
  }
  const bool goes_beyond =
      std::any_of(s.layers.begin(), s.layers.end(), [&](int64_t layer) { return has_own_window(context, layer); });
  if (goes_beyond && context.model_type.rfind("gemma", 0) != 0 && context.model_type != "llama") {
    plan.warnings.push_back("the checkpoint has a window of its own, " +
                            json_text(context.config["sliding_window"], -1) +
                            " keys; layers that keep full attention go beyond it");
  }
}

void check_options(const ExportOptions& options) {
  require_one_of("--target", options.target, {"hf", "vllm", "trtllm", "swaa", "json"});
  require_one_of("--model-impl", options.model_impl, {"auto", "transformers", "vllm"});
  if (options.model_impl != "auto" && options.target != "vllm") {
    fail(ExitCode::kUsage, "--model-impl is for --target vllm, not " + options.target + "; leave it out");
  }
  if (options.max_seq_len && options.target != "trtllm") {
    fail(ExitCode::kUsage, "--max-seq-len is for --target trtllm, not " + options.target + "; leave it out");
  }
  if (options.max_seq_len.value_or(1) < 1) {
    fail(ExitCode::kUsage, "--max-seq-len is " + std::to_string(*options.max_seq_len) + ", expected at least 1");
  }
}

// Whether the engine runs the family at all as asked.
void check_family(const Context& context) {
  const std::string& target = context.options.target;
  if (context.selection.positions == kByType && target != "hf" && target != "json") {
    context.refuse("it was measured with positions that follow the type of a layer, as Transformers has them; " +
                   engine_name(target) + " is not known to; use --target hf");
  }
  if (!context.selection.native_layers.empty() && target == "swaa") {
    context.refuse("SWAA has one rule for all windowed layers, and " +
                   std::to_string(context.selection.native_layers.size()) + " layers have a window of their own");
  }
  if (target != "hf" && target != "vllm") return;
  const Way way = target == "hf" ? context.rule.hf : context.rule.vllm;
  if (way == Way::kRefused) {
    context.refuse(engine_name(target) + " windows all layers of a " + context.model_type +
                   " or none, whatever layer_types says; use --target swaa");
  }
  if (way == Way::kUnknown) {
    context.refuse("whether " + engine_name(target) + " honours layer_types for a " +
                   (context.model_type.empty() ? "model without model_type" : context.model_type) +
                   " is not known; use --target json and apply the list yourself");
  }
}

void check_config(const Context& context) {
  const auto field = [&](const char* key) {
    return context.config.contains(key) ? json_text(context.config[key], -1) : std::string("none");
  };
  if (context.config.contains("num_hidden_layers") &&
      context.config["num_hidden_layers"] != context.selection.n_layers) {
    fail(ExitCode::kConfigMismatch, context.origin + ": num_hidden_layers is " + field("num_hidden_layers") +
                                        ", but the selection is for " + std::to_string(context.selection.n_layers) +
                                        " layers; give the model that it was made for");
  }
  if (context.model_type == context.selection.model_type) return;
  fail(ExitCode::kConfigMismatch, context.origin + ": model_type is " + field("model_type") +
                                      ", but the selection is for a " + context.selection.model_type +
                                      "; give the model that it was made for");
}

}  // namespace

ExportPlan plan_export(const Selection& selection, const std::string& config, const std::string& origin,
                       const ExportOptions& options) {
  check_options(options);
  const Json json = parse_ordered_json(config, origin, JsonDialect::kPython);
  if (!json.is_object()) fail(ExitCode::kBadData, origin + ": expected a JSON object");
  Context context{.selection = selection,
                  .options = options,
                  .config = json,
                  .origin = origin,
                  .model_type = "",
                  .windows = selection.windows()};
  if (json.contains("model_type") && json["model_type"].is_string()) context.model_type = json["model_type"];
  for (const FamilyRule& rule : kFamilyRules) {
    if (context.model_type == rule.model_type) context.rule = rule;
  }
  check_config(context);
  check_family(context);

  ExportPlan plan;
  plan.target = options.target;
  plan.windows = context.windows;
  warn_of_semantics(context, plan);
  if (options.target == "hf") plan_hf(context, plan);
  if (options.target == "vllm") plan_vllm(context, plan);
  if (options.target == "trtllm") plan_trtllm(context, plan);
  if (options.target == "swaa") plan_swaa(context, plan);
  if (options.target == "json") plan.command = std::string("windows of ") + kExportRecord;
  return plan;
}

std::string export_record(const ExportPlan& plan, const Selection& selection) {
  Json record = {{"format", "winnow-export"}, {"format_version", 1}, {"target", plan.target}};
  record["model"] = to_utf8(selection.model);
  record["model_type"] = selection.model_type;
  record["checkpoint_sha256"] = selection.checkpoint_sha256;
  record["method"] = selection.method;
  record["keep"] = selection.keep;
  record["n_layers"] = selection.n_layers;
  record["layers"] = selection.layers;
  record["sinks"] = selection.sinks;
  record["decode"] = selection.decode;
  record["tail_rows"] = selection.tail_rows;
  record["windows"] = Json::array();
  for (const evaluation::ServedWindow& window : plan.windows) {
    record["windows"].push_back(window.is_windowed() ? Json(window.keys) : Json(nullptr));
  }
  record["files"] = Json::array();
  for (const ExportFile& file : plan.files) record["files"].push_back(file.name);
  record["command"] = plan.command;
  record["warnings"] = plan.warnings;
  return json_text(record, 2) + "\n";
}

}  // namespace winnow::selection
