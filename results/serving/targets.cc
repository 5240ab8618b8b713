#include "results/serving/targets.h"

#include <algorithm>
#include <cstdio>

#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "results/selection/methods.h"
#include "results/serving/kv_allocation.h"

namespace winnow::serving {
namespace {

// The export's own folder, in a program of it.
constexpr const char* kHere = "$(dirname \"$0\")";

// A program that starts the engine.
ExportFile serve_script(const Request& request, const std::string& command) {
  const std::string title = request.engine_title();
  return {"serve.sh", "#!/bin/sh\n# Further flags of " + title + " may follow.\nexec " + command + " \"$@\"\n", true};
}

// The folder becomes a checkpoint in that form.
void plan_checkpoint(const Request& request, const FormOfModel& form, ExportPlan& plan) {
  plan.files.push_back({"config.json", python_json(changed_config(request.config, form)) + "\n"});
  plan.links_checkpoint = true;
  plan.weights = form.weights;
  plan.served_as = form.served_as;
  if (form.served_as == request.model_type) return;
  plan.warnings.push_back("written as a " + form.served_as + ", since " + request.engine_title() + " gives a " +
                          request.model_type + " no window per layer: same weights and figures" +
                          (plan.target == "hf" ? ", but needs Transformers 5" : ""));
}

void plan_hf(const Request& request, const EngineRow& row, ExportPlan& plan) {
  const FormOfModel form = make_form(request, row.form);
  plan_checkpoint(request, form, plan);
  plan.files.push_back({"config_patch.json", json_text(form.patch, 2) + "\n"});
  plan.is_checked_in_transformers = true;
  plan.command = "transformers.AutoModelForCausalLM.from_pretrained(\".\")";
}

void warn_of_vllm(const Request& request, ExportPlan& plan) {
  const std::string padding = selection::hybrid_padding_note(request.selection.keep, request.selection.n_layers);
  if (!padding.empty()) plan.warnings.push_back(padding);
  if (request.n_full() == 0 || request.n_windowed() == 0) return;
  plan.warnings.emplace_back(
      "do not give --disable-hybrid-kv-cache-manager, nor a connector that offloads keys and values without supporting "
      "hybrids: figures stay right, but windowed layers then keep the whole sequence");
  plan.warnings.emplace_back(
      "vLLM 0.23 to 0.28 finds next to no cached prefix of a hybrid unless VLLM_PREFIX_CACHE_RETENTION_INTERVAL is "
      "set; "
      "later ones have --prefix-cache-retention-interval");
}

// Flags for the type of keys and values, and the layers that keep the model's own.
std::string vllm_kv_flags(const Request& request) {
  const KvType type = request.kv_type();
  if (type == KvType::kStored) return "";
  std::vector<int64_t> skipped;
  for (std::size_t layer = 0; layer < request.selection.layer_kv.size(); ++layer) {
    if (request.selection.layer_kv[layer] == KvType::kStored) skipped.push_back(static_cast<int64_t>(layer));
  }
  const std::string flags = " --kv-cache-dtype " + std::string(kv_word(*request.engine, type));
  return skipped.empty() ? flags : flags + " --kv-cache-dtype-skip-layers " + joined(skipped, " ");
}

// What an engine may do with keys and values of a type besides keeping them so.
void warn_of_types(const Request& request, ExportPlan& plan) {
  const KvType type = request.kv_type();
  if (type == KvType::kStored) return;
  if (type == KvType::kFp8) {
    plan.warnings.push_back(request.engine_title() +
                            " takes the checkpoint's k_scale and v_scale, else 1, as it was measured; attention that "
                            "computes in fp8 rounds queries too, which was not");
  }
  if (plan.target == "vllm" && type == KvType::kInt8) {
    plan.warnings.emplace_back(
        "int8_per_token_head is of vLLM's Triton attention alone: --attention-backend TRITON_ATTN");
  }
}

void plan_vllm(const Request& request, const EngineRow& row, ExportPlan& plan) {
  const FormOfModel form = make_form(request, row.form);
  const std::string& impl = request.options.model_impl;
  std::string flags;
  if (row.route == Route::kTransformers) flags = " --model-impl transformers";
  if (row.route == Route::kPlugin || impl == "vllm") flags = " --model-impl vllm";
  if (request.options.max_seq_len) flags += " --max-model-len " + std::to_string(*request.options.max_seq_len);
  flags += vllm_kv_flags(request);
  if (row.route == Route::kRelabelled) {
    plan_checkpoint(request, form, plan);
    plan.files.push_back(serve_script(request, "vllm serve \"" + std::string(kHere) + "\"" + flags));
  } else {
    plan.files.push_back({kOverridesFile, json_text(form.patch, 2) + "\n"});
    plan.files.push_back(serve_script(request, "vllm serve " + shell_word(request.options.model_path) +
                                                   " --hf-overrides " + shell_word(json_text(form.patch, -1)) + flags));
  }
  plan.is_checked_in_transformers = row.route == Route::kTransformers || row.route == Route::kRelabelled;
  plan.command = "./serve.sh";
  warn_of_vllm(request, plan);
}

// The checkpoint in the row's form; in its own where the engine fails with that one and no layer has a window anyway.
FormOfModel form_or_full(const Request& request, const EngineRow& row, ExportPlan& plan) {
  if (!row.limits.needs_windowed || request.n_windowed() > 0) return make_form(request, row.form);
  plan.route = Route::kNative;
  return full_form(request);
}

void plan_sglang(const Request& request, const EngineRow& row, ExportPlan& plan) {
  FormOfModel form = form_or_full(request, row, plan);
  // Its Mellum has an output of its own, of zeros where the checkpoint has none.
  if (form.served_as == "mellum") untie_output(request, form);
  const bool is_folder = plan.route != Route::kTransformers;
  std::string command = "python3 -m sglang.launch_server --model-path ";
  if (is_folder) {
    plan_checkpoint(request, form, plan);
    command += "\"" + std::string(kHere) + "\"";
  } else {
    plan.files.push_back({kOverridesFile, json_text(form.patch, 2) + "\n"});
    command += shell_word(request.options.model_path) + " --model-impl transformers --json-model-override-args " +
               shell_word(json_text(form.patch, -1));
  }
  if (request.n_windowed() > 0) {
    const double ratio = sglang_pool_ratio(request.one_window(), request.max_seq_len());
    char text[16];
    std::snprintf(text, sizeof text, "%.2f", ratio);
    command += std::string(" --swa-full-tokens-ratio ") + text;
    plan.warnings.push_back("--swa-full-tokens-ratio " + std::string(text) + " is for sequences of " +
                            std::to_string(request.max_seq_len()) +
                            " tokens; shorter ones, many at a time, need a larger one, or SGLang retracts requests");
  }
  if (request.options.max_seq_len) command += " --context-length " + std::to_string(*request.options.max_seq_len);
  if (request.kv_type() != KvType::kStored) {
    command += " --kv-cache-dtype " + std::string(kv_word(*request.engine, request.kv_type()));
  }
  plan.files.push_back(serve_script(request, command));
  plan.is_checked_in_transformers = is_folder;
  plan.command = "./serve.sh";
}

void plan_llamacpp(const Request& request, const EngineRow& row, ExportPlan& plan) {
  FormOfModel form = form_or_full(request, row, plan);
  if (form.served_as == "mellum") untie_output(request, form);
  plan_checkpoint(request, form, plan);
  const std::string gguf = "\"" + std::string(kHere) + "/" + kGgufFile + "\"";
  plan.files.push_back(
      {"convert.sh",
       "#!/bin/sh\n# LLAMA_CPP names a checkout of llama.cpp. Further flags of its converter may "
       "follow.\nexec python3 \"${LLAMA_CPP:?names no checkout of llama.cpp}/convert_hf_to_gguf.py\" \"" +
           std::string(kHere) + "\" --outfile " + gguf + " \"$@\"\n",
       true});
  // Left to itself the server takes four sequences that share one cache, whose windowed layers hold four windows.
  const int64_t n_sequences = request.options.concurrency;
  std::string command = "llama-server --model " + gguf + " --parallel " + std::to_string(n_sequences);
  if (request.options.max_seq_len || n_sequences > 1) {
    command += " --ctx-size " + std::to_string(request.max_seq_len() * n_sequences);
  }
  plan.files.push_back(serve_script(request, command));
  plan.is_checked_in_transformers = true;
  plan.command = request.options.llama_cpp.empty() ? "LLAMA_CPP=DIR ./convert.sh && ./serve.sh" : "./serve.sh";
  if (request.n_windowed() == 0) return;
  plan.warnings.emplace_back(
      "a windowed layer's cache cannot be taken back: llama.cpp processes a prompt anew that differs from the last one "
      "before its end, unless it is started with --swa-full or finds a checkpoint of the context");
}

void plan_mlx(const Request& request, const EngineRow& row, ExportPlan& plan) {
  plan_checkpoint(request, make_form(request, row.form), plan);
  plan.files.push_back(serve_script(request, "mlx_lm.server --model \"" + std::string(kHere) + "\""));
  // A Llama with layer_types is right in MLX-LM and wrong in Transformers, which need not agree with it.
  plan.is_checked_in_transformers = plan.served_as == "mellum";
  plan.command = "./serve.sh";
  if (request.n_windowed() == 0) return;
  plan.warnings.emplace_back(
      "a windowed layer's cache cannot be taken back beyond its window: MLX-LM processes a prompt anew that differs "
      "from "
      "the last one before its end");
}

void plan_trtllm(const Request& request, ExportPlan& plan) {
  const int64_t max_seq_len = request.max_seq_len();
  Json windows = Json::array();
  for (const evaluation::ServedWindow& window : plan.windows) windows.push_back(std::min(window.keys, max_seq_len));
  plan.files.push_back({"llm_api_options.yaml",
                        "# Keys that each layer holds; " + std::to_string(max_seq_len) +
                            " is full attention. From the first layer to the last.\nmax_seq_len: " +
                            std::to_string(max_seq_len) + "\nkv_cache_config:\n  enable_block_reuse: false\n" +
                            (request.kv_type() == KvType::kStored
                                 ? ""
                                 : "  dtype: " + std::string(kv_word(*request.engine, request.kv_type())) + "\n") +
                            "  max_attention_window: " + json_text(windows, -1) + "\n"});
  plan.files.push_back(serve_script(request, "trtllm-serve " + shell_word(request.options.model_path) +
                                                 " --extra_llm_api_options \"" + kHere + "/llm_api_options.yaml\""));
  plan.command = "./serve.sh";
  const bool has_windows = request.model_type.rfind("gemma", 0) == 0;
  if (!has_windows && request.selection.tail_rows != 0) {
    plan.warnings.push_back(
        "TensorRT-LLM limits the KV cache by this list, but a " + request.model_type +
        " has no window of its own there, so its prefill masks nothing (issue 11244): full "
        "attention over the prompt, windows in decoding; measure that with calibrate --tail-rows 0");
  }
  if (request.config.contains("layer_types")) {
    plan.warnings.emplace_back(
        "config.json has layer_types, from which TensorRT-LLM derives windows since September 2026, too; the list is "
        "what was measured");
  }
}

void plan_swaa(const Request& request, ExportPlan& plan) {
  const selection::Selection& s = request.selection;
  // SWAA counts the window as each of its engines does: measured for its vLLM, the given number makes one key more.
  const int64_t size = request.one_window() - (s.target == "swaa-vllm" ? 1 : 0);
  const Json setting = {{"swaa_config",
                         {{"sliding_window_size", size},
                          {"keep_first", s.sinks},
                          {"force_fa_decode", s.decode == "full"},
                          {"non_sliding_layers", s.layers}}},
                        {"model_list", Json::array({to_utf8(request.options.model_path)})}};
  plan.files.push_back({"swaa_settings.json", json_text(Json::array({setting}), 2) + "\n"});
  plan.command =
      "SWAAConfig(**setting[\"swaa_config\"]) for each setting of swaa_settings.json, as its eval_swaa.py does";
  if (s.target != "swaa-vllm") {
    plan.warnings.push_back("SWAA's vLLM sees " + std::to_string(size + 1) +
                            " keys with this window, its Transformers " + std::to_string(size) +
                            "; measure with --target swaa-vllm to serve it there");
  }
}

}  // namespace

void plan_target(const Request& request, const EngineRow& row, ExportPlan& plan) {
  if (plan.target == "hf") plan_hf(request, row, plan);
  if (plan.target == "vllm") plan_vllm(request, row, plan);
  if (plan.target == "sglang") plan_sglang(request, row, plan);
  if (plan.target == "llamacpp") plan_llamacpp(request, row, plan);
  if (plan.target == "mlx") plan_mlx(request, row, plan);
  if (plan.target == "trtllm") plan_trtllm(request, plan);
  if (plan.target == "swaa") plan_swaa(request, plan);
  warn_of_types(request, plan);
}

}  // namespace winnow::serving
