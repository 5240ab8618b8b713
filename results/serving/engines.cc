#include "results/serving/engines.h"

#include <algorithm>
#include <array>

namespace winnow::serving {
namespace {

// Types of keys and values. vLLM: --kv-cache-dtype with --kv-cache-dtype-skip-layers (CacheConfig); its
// int4_per_token_head turns heads by a Hadamard matrix before it rounds, which is another rounding. SGLang:
// --kv-cache-dtype; TensorRT-LLM: KvCacheConfig.dtype. llama.cpp and MLX-LM round blocks of 32 and 64 elements,
// Transformers' quantised cache keeps its last tokens as they are.
constexpr std::array<Engine, 7> kEngines = {{
    {.name = "transformers", .target = "hf", .title = "Transformers", .version = "5.24"},
    {.name = "vllm",
     .target = "vllm",
     .title = "vLLM",
     .version = "0.33",
     .kv_types = "fp8 int8",
     .kv_words = "fp8 int8_per_token_head",
     .mixes_kv_types = true},
    {.name = "sglang",
     .target = "sglang",
     .title = "SGLang",
     .version = "0.5.23",
     .kv_types = "fp8",
     .kv_words = "fp8_e4m3"},
    {.name = "llamacpp", .target = "llamacpp", .title = "llama.cpp", .version = "b11549"},
    {.name = "mlx", .target = "mlx", .title = "MLX-LM", .version = "0.32"},
    {.name = "trtllm",
     .target = "trtllm",
     .title = "TensorRT-LLM",
     .version = "main",
     .kv_types = "fp8",
     .kv_words = "fp8"},
    {.name = "swaa", .target = "swaa", .title = "SWAA", .version = "main"},
}};

constexpr Limits kSomeWindowed = {.needs_windowed = true};
constexpr Limits kMlx = {.needs_full = true};

// Sources: configuration_FAMILY.py and modeling_FAMILY.py of Transformers; vllm/model_executor/models;
// python/sglang/srt/models and model_config.py; src/models and conversion/ of llama.cpp; mlx_lm/models; the reference
// of TensorRT-LLM's KvCacheConfig; Eval/settings_list of SWAA.
constexpr EngineRow kRows[] = {
    {.engine = "transformers",
     .families = "qwen3 qwen2 smollm3",
     .evidence = Evidence::kRun,
     .effect = "`layer_types` behind `use_sliding_window`"},
    {.engine = "transformers",
     .families = "gemma2 gemma3_text olmo3 exaone4 cohere2 gpt_oss granite_swa",
     .evidence = Evidence::kRun,
     .effect = "`layer_types`; where positions follow the type of a layer, what was measured with `--target hf`"},
    {.engine = "transformers",
     .families = "llama mistral",
     .route = Route::kRelabelled,
     .form = Form::kMinistral,
     .evidence = Evidence::kRun,
     .effect = "as `ministral`: same weights",
     .limits = {.no_attention_bias = true}},
    {.engine = "transformers",
     .families = "llama granite seed_oss",
     .route = Route::kRelabelled,
     .form = Form::kGraniteSwa,
     .evidence = Evidence::kRun,
     .effect = "as `granite_swa`, with sinks that weigh nothing; a Llama where it has biases"},
    {.engine = "transformers",
     .families = "olmo2",
     .route = Route::kRelabelled,
     .form = Form::kOlmo3,
     .evidence = Evidence::kRun,
     .effect = "as `olmo3`: same weights"},
    {.engine = "transformers",
     .families = "qwen3_moe",
     .route = Route::kRelabelled,
     .form = Form::kMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum`: same weights; its own code windows all layers or none"},

    {.engine = "vllm", .families = "llama mistral", .evidence = Evidence::kRun, .effect = "`layer_types`"},
    {.engine = "vllm", .families = "gemma2 gemma3_text exaone4 granite_swa", .effect = "`layer_types`"},
    {.engine = "vllm",
     .families = "qwen3 qwen2",
     .route = Route::kTransformers,
     .evidence = Evidence::kRun,
     .effect = "`--model-impl transformers`; its own code runs full attention everywhere"},
    {.engine = "vllm",
     .families = "smollm3 gemma2 gemma3_text olmo3 exaone4 cohere2",
     .route = Route::kTransformers,
     .effect = "`--model-impl transformers`; its own Command R7B sees a key more than `sliding_window` says"},
    {.engine = "vllm",
     .families = "gpt_oss",
     .effect = "its own code windows each second layer, whatever `layer_types` says",
     .limits = {.period = 2}},
    {.engine = "vllm",
     .families = "qwen3_moe",
     .route = Route::kRelabelled,
     .form = Form::kMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum`, which its Transformers backend runs; its own code windows no layer"},
    {.engine = "vllm",
     .families = "granite seed_oss",
     .route = Route::kRelabelled,
     .form = Form::kGraniteSwa,
     .effect = "as `granite_swa`"},
    {.engine = "vllm",
     .families = "olmo2",
     .route = Route::kRelabelled,
     .form = Form::kOlmo3,
     .effect = "as `olmo3`, which its Transformers backend runs"},
    {.engine = "vllm",
     .families = "qwen3 llama mistral",
     .route = Route::kPlugin,
     .form = Form::kLayerWindows,
     .evidence = Evidence::kRun,
     .effect = "`--model-impl plugin`: its own code with winnow's plugin; several window sizes, too"},
    {.engine = "vllm",
     .families = "qwen3_moe",
     .route = Route::kPlugin,
     .form = Form::kLayerWindows,
     .evidence = Evidence::kRun,
     .effect = "`--model-impl plugin`: the same"},

    {.engine = "sglang",
     .families = "qwen3",
     .route = Route::kRelabelled,
     .form = Form::kMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum`; as itself full attention everywhere",
     .limits = kSomeWindowed},
    {.engine = "sglang",
     .families = "qwen3_moe",
     .route = Route::kRelabelled,
     .form = Form::kMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum`; as itself full attention everywhere",
     .limits = kSomeWindowed},
    {.engine = "sglang",
     .families = "llama mistral qwen2 granite seed_oss",
     .route = Route::kRelabelled,
     .form = Form::kGraniteSwa,
     .effect = "as `granite_swa`, on a GPU: its CPU backend has no sinks",
     .limits = kSomeWindowed},
    {.engine = "sglang",
     .families = "qwen3 qwen2 llama",
     .route = Route::kTransformers,
     .form = Form::kExclusive,
     .evidence = Evidence::kRun,
     .effect = "`--model-impl transformers`, which sees one key more than `sliding_window` says: the export asks for "
               "one less",
     .limits = kSomeWindowed},
    {.engine = "sglang", .families = "gpt_oss granite_swa", .effect = "`layer_types`", .limits = kSomeWindowed},

    {.engine = "llamacpp",
     .families = "qwen3",
     .route = Route::kRelabelled,
     .form = Form::kOneExpertMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum` with one expert; as itself full attention everywhere",
     .limits = {.needs_windowed = true, .default_rope = true, .no_attention_bias = true}},
    {.engine = "llamacpp",
     .families = "qwen3_moe",
     .route = Route::kRelabelled,
     .form = Form::kMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum`; as itself full attention everywhere",
     .limits = {.needs_windowed = true,
                .default_rope = true,
                .experts_in_all = true,
                .normalised_experts = true,
                .no_attention_bias = true}},
    {.engine = "llamacpp",
     .families = "llama mistral qwen2 granite",
     .route = Route::kRelabelled,
     .form = Form::kGraniteSwa,
     .evidence = Evidence::kRun,
     .effect = "as `granite_swa`; as themselves full attention everywhere",
     .limits = {.needs_windowed = true, .usual_head_dim = true}},
    {.engine = "llamacpp",
     .families = "granite_swa",
     .effect = "its pattern",
     .limits = {.needs_windowed = true, .usual_head_dim = true}},
    {.engine = "llamacpp",
     .families = "gemma2 gpt_oss",
     .effect = "its own pattern only, each second layer full",
     .limits = {.period = 2}},
    {.engine = "llamacpp",
     .families = "olmo3 exaone4 cohere2",
     .effect = "its own pattern only, each fourth layer full",
     .limits = {.period = 4}},
    {.engine = "llamacpp",
     .families = "gemma3_text",
     .effect = "its own pattern only, each sixth layer full",
     .limits = {.period = 6}},

    {.engine = "mlx",
     .families = "llama mistral",
     .form = Form::kTopLevelRope,
     .evidence = Evidence::kRun,
     .effect = "`layer_types`, and `rope_theta` where it looks for it",
     .limits = kMlx},
    {.engine = "mlx",
     .families = "qwen3",
     .route = Route::kRelabelled,
     .form = Form::kOneExpertMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum` with one expert; as itself full attention everywhere",
     .limits = {.needs_full = true, .no_attention_bias = true}},
    {.engine = "mlx",
     .families = "qwen3_moe",
     .route = Route::kRelabelled,
     .form = Form::kMellum,
     .evidence = Evidence::kRun,
     .effect = "as `mellum`; as itself full attention everywhere",
     .limits = {.needs_full = true, .experts_in_all = true, .no_attention_bias = true}},
    {.engine = "mlx",
     .families = "qwen2",
     .route = Route::kRelabelled,
     .form = Form::kLlama,
     .evidence = Evidence::kRun,
     .effect = "as `llama` with biases; as itself full attention everywhere",
     .limits = kMlx},
    {.engine = "mlx", .families = "gpt_oss", .effect = "`layer_types`", .limits = kMlx},

    {.engine = "trtllm",
     .families = "*",
     .form = Form::kList,
     .effect =
         "a list of windows: they bound the cache, and the prompt keeps full attention (`--tail-rows 0`) where the "
         "family has no window of its own"},

    {.engine = "swaa",
     .families = "qwen3 qwen2 llama qwen3_moe",
     .form = Form::kSettings,
     .effect = "a settings list; sinks and full attention of answers, too"},
};

// "a, b, c" of words.
std::string with_commas(std::string_view words, const std::string& quote = "") {
  std::string text = quote;
  for (const char letter : words) text += letter == ' ' ? quote + ", " + quote : std::string(1, letter);
  return text + quote;
}

}  // namespace

bool EngineRow::serves(std::string_view family) const {
  if (families == "*") return !family.empty();
  return !family.empty() &&
         (" " + std::string(families) + " ").find(" " + std::string(family) + " ") != std::string::npos;
}

std::span<const Engine> engines() { return kEngines; }

const Engine* find_engine(std::string_view target) {
  const auto found = std::ranges::find(kEngines, target, &Engine::target);
  return found == kEngines.end() ? nullptr : &*found;
}

std::string_view kv_word(const Engine& engine, KvType type) {
  std::string_view types = engine.kv_types;
  std::string_view words = engine.kv_words;
  const auto next = [](std::string_view& rest) {
    const std::string_view word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    return word;
  };
  while (!types.empty()) {
    const std::string_view word = next(words);
    if (next(types) == kv_type_name(type)) return word;
  }
  return "";
}

std::string kv_obstacle(const Engine& engine, std::span<const KvType> kv) {
  std::vector<KvType> types(kv.begin(), kv.end());
  std::ranges::sort(types);
  types.erase(std::unique(types.begin(), types.end()), types.end());
  const std::string title(engine.title);
  const bool has_stored = !types.empty() && types.front() == KvType::kStored;
  if (has_stored) types.erase(types.begin());
  for (const KvType type : types) {
    if (!kv_word(engine, type).empty()) continue;
    const std::string known = engine.kv_types.empty() ? "" : ", only in " + with_commas(engine.kv_types);
    return title + " is not known to keep keys and values in " + std::string(kv_type_name(type)) +
           " as it was measured" + known;
  }
  if (types.size() > 1)
    return title + " keeps keys and values in one narrower type, not in " + joined_names(types, " and ");
  if (types.size() == 1 && has_stored && !engine.mixes_kv_types) {
    return title + " keeps the keys and values of all layers in one type, and some are to be in " +
           std::string(kv_type_name(types.front())) + ", others not";
  }
  return "";
}

std::span<const EngineRow> engine_rows() { return kRows; }

std::vector<const EngineRow*> rows_of(const Engine& engine, std::string_view family) {
  std::vector<const EngineRow*> rows;
  for (const EngineRow& row : kRows) {
    if (row.engine == engine.name && row.serves(family)) rows.push_back(&row);
  }
  return rows;
}

std::string_view route_name(Route route) {
  switch (route) {
    case Route::kNative:
      return "native";
    case Route::kTransformers:
      return "transformers";
    case Route::kPlugin:
      return "plugin";
    case Route::kRelabelled:
      return "relabelled";
  }
  return "";
}

std::string families_of(const Engine& engine) {
  std::string words;
  for (const EngineRow& row : kRows) {
    if (row.engine != engine.name) continue;
    std::string_view rest = row.families;
    while (!rest.empty()) {
      const std::string_view word = rest.substr(0, rest.find(' '));
      if ((" " + words + " ").find(" " + std::string(word) + " ") == std::string::npos) {
        words += (words.empty() ? "" : " ") + std::string(word);
      }
      rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    }
  }
  return with_commas(words);
}

std::vector<std::string> engines_table() {
  std::vector<std::string> lines;
  for (const EngineRow& row : kRows) {
    const auto engine = std::ranges::find(kEngines, row.engine, &Engine::name);
    lines.push_back("| " + std::string(engine->title) + " " + std::string(engine->version) + " | " +
                    (row.families == "*" ? "any" : with_commas(row.families, "`")) + " | " +
                    std::string(route_name(row.route)) + " | " + std::string(row.effect) + " | " +
                    (row.evidence == Evidence::kRun ? "run" : "read") + " |");
  }
  return lines;
}

}  // namespace winnow::serving
