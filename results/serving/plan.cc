#include "results/serving/plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "results/serving/heads.h"
#include "results/serving/targets.h"

namespace winnow::serving {
namespace {

// Bounds on what is served, far beyond what is.
constexpr int64_t kMostTokens = int64_t{1} << 31;
constexpr int64_t kMostSequences = int64_t{1} << 20;

// ---- what the engine runs -------------------------------------------------------------------------------------------

// Why a row's limits exclude this model or pattern; "": they do not.
std::string obstacle(const Request& request, const EngineRow& row) {
  const Limits& limits = row.limits;
  const std::string title = request.engine_title();
  for (int64_t layer = 0; limits.period > 0 && layer < request.selection.n_layers; ++layer) {
    const bool is_windowed = request.windows[static_cast<std::size_t>(layer)].is_windowed();
    if (is_windowed != ((layer + 1) % limits.period != 0)) {
      return title + " itself has full attention in one layer in " + std::to_string(limits.period) + " of a " +
             request.model_type + ", the last of them, whatever config.json says, and layer " + std::to_string(layer) +
             " is to be otherwise";
    }
  }
  if (limits.no_attention_bias) {
    for (const char* key : {"attention_bias", "mlp_bias"}) {
      if (request.is_true(key)) return std::string(key) + " is true, which that family does not have in " + title;
    }
  }
  if (limits.needs_full && request.n_full() == 0) {
    return title + " fails where no layer has full attention; keep it in one layer at least";
  }
  if (!limits.default_rope && !limits.usual_head_dim && !limits.experts_in_all) return "";
  const ModelShape shape = request.source.shape();
  if (limits.default_rope && shape.has_scaled_rope && request.n_windowed() > 0) {
    return title + " does not keep the scaling of the rotary embedding in windowed layers";
  }
  if (limits.usual_head_dim && shape.head_dim * shape.n_heads != shape.hidden) {
    return "its heads have " + std::to_string(shape.head_dim) + " dimensions, and " + title + " takes " +
           std::to_string(shape.hidden / std::max<int64_t>(shape.n_heads, 1)) + " for granted, hidden_size / heads";
  }
  if (limits.normalised_experts && !shape.normalised_experts) {
    return "norm_topk_prob is false, and " + title + " divides the weights of the chosen experts by their sum anyway";
  }
  const bool has_mixed_layers = std::ranges::count(shape.expert_layers, false) > 0;
  if (limits.experts_in_all && has_mixed_layers)
    return "some of its layers have no experts, which " + title + " expects in all";
  return "";
}

// Whether --model-impl leaves a route open.
bool is_wanted(const ExportOptions& options, Route route) {
  if (options.model_impl == "transformers") return route == Route::kTransformers;
  if (options.model_impl == "plugin") return route == Route::kPlugin;
  if (options.model_impl == "vllm") return route == Route::kNative;
  return route != Route::kPlugin;
}

[[noreturn]] void refuse_family(const Request& request) {
  request.refuse("how " + request.engine_title() + " would give single layers of a " +
                 (request.model_type.empty() ? "model without model_type" : request.model_type) +
                 " a window is not known, so it is none of " + families_of(*request.engine) +
                 "; use --target json and apply the list yourself");
}

// How the engine is going to run the model; refuses what it would not.
const EngineRow& choose_row(const Request& request) {
  const std::vector<const EngineRow*> rows = rows_of(*request.engine, request.model_type);
  if (rows.empty()) refuse_family(request);
  std::string why;
  for (const EngineRow* row : rows) {
    if (!is_wanted(request.options, row->route)) continue;
    const std::string reason = obstacle(request, *row);
    if (reason.empty()) return *row;
    if (why.empty()) why = reason;
  }
  if (!why.empty()) request.refuse(why);
  if (request.options.model_impl == "vllm") {
    request.refuse("vLLM's own " + request.model_type +
                   " has no window per layer and would run full attention everywhere; leave out --model-impl vllm");
  }
  request.refuse(request.engine_title() + " has no window per layer for a " + request.model_type +
                 " that way; leave out --model-impl " + request.options.model_impl);
}

void check_target(const Request& request) {
  const std::string& target = request.options.target;
  if (request.selection.is_of_heads() && !is_head_target(target)) {
    const std::string of_heads = joined(head_targets(), " or ");
    request.refuse("it gives single key heads a window, and " +
                   (request.engine == nullptr ? "its list" : request.engine_title()) +
                   " has one for all heads of a layer; use --target " + of_heads);
  }
  if (!request.selection.is_of_heads() && is_head_target(target)) {
    request.refuse("it is a selection of layers; make one of key heads with winnow select --per-kv-head");
  }
  if (request.selection.positions == selection::kByType && target != "hf" && target != "json") {
    request.refuse("it was measured with positions that follow the type of a layer, as Transformers has them; " +
                   request.engine_title() + " is not known to; use --target hf");
  }
  if (request.engine != nullptr) {
    const std::string why = kv_obstacle(*request.engine, request.selection.layer_kv);
    if (!why.empty()) request.refuse(why);
  }
  if (!request.selection.native_layers.empty() && target == "swaa") {
    request.refuse("SWAA has one rule for all windowed layers, and " +
                   std::to_string(request.selection.native_layers.size()) + " layers have a window of their own");
  }
}

// ---- warnings -------------------------------------------------------------------------------------------------------

// Whether the checkpoint windows that layer itself, as Transformers applies it. Qwen says so for each layer, by a list
// or by the first one; without either its default is 28.
bool has_own_window(const Request& request, int64_t layer) {
  const Json& config = request.config;
  if (!config.contains("sliding_window") || !config["sliding_window"].is_number()) return false;
  if (config.contains("use_sliding_window") && !request.is_true("use_sliding_window")) return false;
  if (request.model_type == "mistral") return true;
  const auto index = static_cast<std::size_t>(layer);
  if (config.contains("layer_types") && config["layer_types"].is_array()) {
    return index < config["layer_types"].size() && config["layer_types"][index] == "sliding_attention";
  }
  if (request.model_type != "qwen2" && request.model_type != "qwen3") return true;
  const Json first = config.value("max_window_layers", Json());
  return layer >= (first.is_number_integer() ? first.get<int64_t>() : 28);
}

// Where the engine's window rules are not those that the selection was measured with.
void warn_of_semantics(const Request& request, ExportPlan& plan) {
  const selection::Selection& s = request.selection;
  const std::string engine = request.engine_title();
  const auto warn = [&](const std::string& text) { plan.warnings.push_back("measured " + text); };
  const bool has_sinks = plan.target == "swaa";
  const bool is_measured_for = plan.target == "hf" || plan.target == "vllm" || plan.target == "trtllm";
  const std::string flag = "calibrate with --target " + (is_measured_for ? plan.target : std::string("hf"));
  if (s.sinks > 0 && !has_sinks) {
    warn("with " + std::to_string(s.sinks) + " sink tokens, which " + engine + " does not keep; " + flag);
  }
  if (s.decode == "full" && !has_sinks) {
    warn("with full attention for answer rows, which " + engine + " windows like all others; " + flag);
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
      std::any_of(s.layers.begin(), s.layers.end(), [&](int64_t layer) { return has_own_window(request, layer); });
  if (goes_beyond && request.model_type.rfind("gemma", 0) != 0 && request.model_type != "llama") {
    plan.warnings.push_back("the checkpoint has a window of its own, " +
                            json_text(request.config["sliding_window"], -1) +
                            " keys; layers that keep full attention go beyond it");
  }
}

// ---- what it will cost ----------------------------------------------------------------------------------------------

void add_kv(const Request& request, ExportPlan& plan) {
  const ModelShape shape = request.source.shape();
  plan.demand.max_seq_len = request.options.max_seq_len.value_or(shape.max_positions);
  plan.demand.concurrency = request.options.concurrency;
  std::vector<int64_t> windows;
  for (const evaluation::ServedWindow& window : request.windows) {
    windows.push_back(window.is_windowed() ? window.keys : 0);
  }
  plan.kv = kv_allocation(plan.engine, windows, {shape.n_kv_heads, shape.head_dim, shape.kv_element_bytes}, plan.demand,
                          request.selection.layer_kv);
}

// ---- what was asked for ---------------------------------------------------------------------------------------------

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (const Engine& engine : engines()) names.emplace_back(engine.target);
  names.emplace_back("json");
  names.insert(names.end(), head_targets().begin(), head_targets().end());
  return names;
}

void check_options(const ExportOptions& options) {
  require_one_of("--target", options.target, targets());
  require_one_of("--model-impl", options.model_impl, {"auto", "transformers", "vllm", "plugin"});
  const bool has_impl =
      options.target == "vllm" || (options.target == "sglang" && options.model_impl == "transformers");
  if (options.model_impl != "auto" && !has_impl) {
    fail(ExitCode::kUsage, "--model-impl " + options.model_impl + " is not for --target " + options.target +
                               ": vllm takes transformers, vllm and plugin, sglang takes transformers");
  }
  if (!options.llama_cpp.empty() && options.target != "llamacpp") {
    fail(ExitCode::kUsage, "--llama-cpp is for --target llamacpp, not " + options.target + "; leave it out");
  }
  if (options.max_seq_len.value_or(1) < 1 || options.max_seq_len.value_or(1) > kMostTokens) {
    fail(ExitCode::kUsage,
         "--max-seq-len is " + std::to_string(*options.max_seq_len) + ", expected 1 to " + std::to_string(kMostTokens));
  }
  if (options.concurrency < 1 || options.concurrency > kMostSequences) {
    fail(ExitCode::kUsage, "--concurrency is " + std::to_string(options.concurrency) + ", expected 1 to " +
                               std::to_string(kMostSequences));
  }
}

void check_config(const Request& request) {
  const auto field = [&](const char* key) {
    return request.config.contains(key) ? json_text(request.config[key], -1) : std::string("none");
  };
  const std::string& origin = request.source.origin;
  if (request.config.contains("num_hidden_layers") &&
      request.config["num_hidden_layers"] != request.selection.n_layers) {
    fail(ExitCode::kConfigMismatch, origin + ": num_hidden_layers is " + field("num_hidden_layers") +
                                        ", but the selection is for " + std::to_string(request.selection.n_layers) +
                                        " layers; give the model that it was made for");
  }
  if (request.model_type == request.selection.model_type) return;
  fail(ExitCode::kConfigMismatch, origin + ": model_type is " + field("model_type") + ", but the selection is for a " +
                                      request.selection.model_type + "; give the model that it was made for");
}

}  // namespace

ExportPlan plan_export(const selection::Selection& selection, const SourceModel& source, const ExportOptions& options) {
  check_options(options);
  Request request{.selection = selection, .options = options, .source = source};
  request.config = parse_ordered_json(source.config, source.origin, JsonDialect::kPython);
  if (!request.config.is_object()) fail(ExitCode::kBadData, source.origin + ": expected a JSON object");
  if (request.config.contains("model_type") && request.config["model_type"].is_string()) {
    request.model_type = request.config["model_type"];
  }
  request.engine = find_engine(options.target);
  request.windows = selection.windows();
  check_config(request);
  check_target(request);

  ExportPlan plan;
  plan.target = options.target;
  plan.source = options.model_path;
  plan.served_as = request.model_type;
  plan.windows = request.windows;
  if (is_head_target(options.target)) {
    plan_head_target(request, plan);
    return plan;
  }
  if (request.engine == nullptr) {
    plan.command = std::string("windows of ") + kExportRecord;
    return plan;
  }
  const EngineRow& row = choose_row(request);
  plan.engine = request.engine->name;
  plan.route = row.route;
  warn_of_semantics(request, plan);
  plan_target(request, row, plan);
  add_kv(request, plan);
  return plan;
}

std::string kv_line(const ExportPlan& plan) {
  if (!plan.kv) return "";
  const auto bytes = [](double value) { return format_bytes(static_cast<int64_t>(value)); };
  const std::string sequences =
      plan.demand.concurrency == 1 ? "a sequence" : std::to_string(plan.demand.concurrency) + " sequences";
  return "Keys and values of " + sequences + " of " + std::to_string(plan.demand.max_seq_len) +
         " tokens: " + bytes(plan.kv->ideal_bytes) + " for what the windows see; " +
         std::string(find_engine(plan.target)->title) + " takes " + bytes(plan.kv->allocated_bytes) + ", and " +
         bytes(plan.kv->full_bytes) + " with full attention.";
}

std::string export_record(const ExportPlan& plan, const selection::Selection& selection) {
  Json record = {{"format", "winnow-export"}, {"format_version", 1}, {"target", plan.target}};
  record["engine"] = plan.engine.empty() ? Json(nullptr) : Json(plan.engine);
  record["route"] = plan.route ? Json(std::string(route_name(*plan.route))) : Json(nullptr);
  record["served_model_type"] = plan.served_as;
  record["source"] = to_utf8(plan.source);
  record["model"] = to_utf8(selection.model);
  record["model_type"] = selection.model_type;
  record["checkpoint_sha256"] = selection.checkpoint_sha256;
  record["method"] = selection.method;
  record["keep"] = selection.keep;
  record["n_layers"] = selection.n_layers;
  record["layers"] = selection.layers;
  if (selection.is_of_heads()) {
    record["kv_heads"] = selection.n_kv_heads;
    record["keep_kv_heads"] = selection.n_full_heads();
  }
  record["sinks"] = selection.sinks;
  record["decode"] = selection.decode;
  record["tail_rows"] = selection.tail_rows;
  record["windows"] = Json::array();
  for (const evaluation::ServedWindow& window : plan.windows) {
    record["windows"].push_back(window.is_windowed() ? Json(window.keys) : Json(nullptr));
  }
  if (!selection.layer_kv.empty()) record["kv"] = names_of(selection.layer_kv);
  if (plan.kv) {
    record["kv_cache"] = {{"max_seq_len", plan.demand.max_seq_len},
                          {"concurrency", plan.demand.concurrency},
                          {"ideal_bytes", static_cast<int64_t>(plan.kv->ideal_bytes)},
                          {"engine_bytes", static_cast<int64_t>(plan.kv->allocated_bytes)},
                          {"full_attention_bytes", static_cast<int64_t>(plan.kv->full_bytes)}};
  }
  record["files"] = Json::array();
  for (const ExportFile& file : plan.files) record["files"].push_back(file.name);
  record["command"] = plan.command;
  record["warnings"] = plan.warnings;
  return json_text(record, 2) + "\n";
}

}  // namespace winnow::serving
