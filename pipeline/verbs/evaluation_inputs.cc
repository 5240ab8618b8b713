#include "pipeline/verbs/evaluation_inputs.h"

#include <algorithm>
#include <set>

#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "model/weights.h"
#include "pipeline/run/layer_rules.h"
#include "pipeline/verbs/evaluation_texts.h"
#include "pipeline/verbs/finished_results.h"
#include "results/evaluation/store.h"

namespace winnow::verbs {
namespace {

constexpr const char* kFlag = "--pattern";

bool has_name(const std::vector<EvaluatedPattern>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const auto& known) { return known.name == name; });
}

// A selection whose name is taken bears its file's name too.
std::string name_with_file(const std::string& name, const std::string& file,
                           const std::vector<EvaluatedPattern>& patterns) {
  const std::string shorter = name + " " + std::filesystem::path(file).filename().string();
  return has_name(patterns, shorter) ? name + " " + file : shorter;
}

// Two files may hold selections of one method and budget, and what a file calls first:2 may be other layers. Two such
// files are told apart where they choose the same layers, too: both rules are asked about.
void add_pattern(selection::NamedPattern given, const std::string& text, std::vector<EvaluatedPattern>& patterns) {
  const bool is_there = std::any_of(patterns.begin(), patterns.end(), [&](const EvaluatedPattern& known) {
    const bool are_two_files = known.given.selection && given.selection && known.file != text;
    return known.given.name == given.name && known.given.windowed == given.windowed &&
           known.given.windows == given.windows && known.given.windowed_heads == given.windowed_heads &&
           known.given.kv == given.kv && !are_two_files;
  });
  if (is_there) return;
  EvaluatedPattern pattern{.name = given.name, .given = {}, .file = {}};
  pattern.given = std::move(given);
  if (pattern.given.selection) {
    pattern.file = text;
    if (has_name(patterns, pattern.name)) pattern.name = name_with_file(pattern.name, text, patterns);
  } else {
    for (EvaluatedPattern& known : patterns) {
      if (known.name == pattern.name) known.name = name_with_file(known.name, known.file, patterns);
    }
  }
  patterns.push_back(std::move(pattern));
}

std::vector<EvaluatedPattern> read_patterns(const run::RunOptions& options, const run::Inputs& inputs) {
  std::vector<EvaluatedPattern> patterns;
  // Hashing the checkpoint takes long: selections are compared with it later, on one rank.
  selection::PatternModel model{.n_layers = inputs.config.n_layers, .checkpoint_sha256 = {}, .native_layers = {}};
  for (int64_t layer = 0; layer < model.n_layers; ++layer) {
    if (inputs.settings.rules.has_native(static_cast<std::size_t>(layer))) model.native_layers.push_back(layer);
  }
  for (const std::string& text : options.patterns)
    add_pattern(selection::parse_pattern(text, model, kFlag), text, patterns);
  // What every pattern is compared with, under this name even where another spells it out; its figures come with the
  // base anyway.
  if (!has_name(patterns, "full"))
    patterns.insert(patterns.begin(),
                    {.name = "full", .given = selection::parse_pattern("full", model, kFlag), .file = {}});
  return patterns;
}

// What single heads do: they are those of this model, and texts are written with whole layers alone.
void check_heads(const run::RunOptions& options, const std::vector<EvaluatedPattern>& patterns,
                 const run::Inputs& inputs) {
  for (const EvaluatedPattern& pattern : patterns) {
    if (pattern.given.windowed_heads.empty()) continue;
    const int64_t n_heads = pattern.given.selection->n_kv_heads;
    if (n_heads != inputs.config.heads.n_kv_heads) {
      fail(ExitCode::kConfigMismatch, pattern.file + ": made for a model of " + std::to_string(n_heads) +
                                          " key heads a layer, this one has " +
                                          std::to_string(inputs.config.heads.n_kv_heads) + "; select for this model");
    }
    if (!inputs.settings.rules.windowed_ropes.empty()) {
      fail(ExitCode::kUsage, pattern.file +
                                 ": gives single key heads a window, which changes the positions of whole "
                                 "layers in this model; evaluate layers");
    }
    if (options.generate == 0) continue;
    fail(ExitCode::kUsage, "--generate: " + pattern.file +
                               " gives single key heads a window, and texts are written with the caches of whole "
                               "layers; leave one of them out");
  }
}

// Layers with a window of their own keep it: a list that names one is refused, of a rule it is said.
void keep_native_windows(std::vector<EvaluatedPattern>& patterns, run::Inputs& inputs) {
  const engine::LayerRules& rules = inputs.settings.rules;
  if (rules.native.empty()) return;
  for (EvaluatedPattern& pattern : patterns) {
    selection::NamedPattern& given = pattern.given;
    const bool is_list = pattern.name.starts_with("list:");
    if (is_list || given.selection)
      run::check_has_no_window(rules, given.full_layers, std::string(kFlag) + " " + pattern.name);
    const auto is_native = [&](int64_t layer) { return rules.has_native(static_cast<std::size_t>(layer)); };
    const auto n_dropped = static_cast<int64_t>(std::erase_if(given.full_layers, is_native));
    given.windowed = selection::pattern_with_full(given.full_layers, static_cast<int64_t>(rules.native.size()));
    if (n_dropped == 0 || given.name == "full") continue;
    inputs.warnings.push_back(std::to_string(n_dropped) + " of the layers that " + pattern.name +
                              " names have a window of their own, which stays");
  }
}

void check_baseline(const std::string& baseline, const std::vector<EvaluatedPattern>& patterns) {
  std::vector<std::string> names;
  for (const EvaluatedPattern& pattern : patterns) names.push_back(pattern.name);
  if (!baseline.empty()) evaluation::require_baseline(baseline, names);
}

std::string window_text(int64_t keys, int64_t sinks, const std::string& decode, int64_t tail_rows) {
  return std::to_string(keys) + " keys, " + std::to_string(sinks) + " sinks, decode " + decode +
         (tail_rows < 0 ? "" : ", tail rows " + std::to_string(tail_rows));
}

// On which of these examples a selection was made, in words; "": on none. A selection that is older than hashes of
// tokens only knows its file.
std::string examples_shared(const selection::Selection& selection, const run::DataSet& data) {
  const bool is_same_file = selection.provenance.text("data_sha256") == data.corpus.sha256;
  if (selection.token_hashes.empty()) return is_same_file ? "these very examples" : "";
  const std::set<std::string> chosen_on(selection.token_hashes.begin(), selection.token_hashes.end());
  int64_t n_shared = 0;
  for (int64_t e = 0; e < data.n_examples; ++e) n_shared += chosen_on.contains(data.corpus.token_hash(e)) ? 1 : 0;
  if (n_shared == data.n_examples) return "these very examples";
  if (n_shared == 0) return "";
  return std::to_string(n_shared) + " of these " + std::to_string(data.n_examples) + " examples";
}

void warn_of_selections(const std::vector<EvaluatedPattern>& patterns, run::Inputs& inputs) {
  const run::Settings& settings = inputs.settings;
  const std::string here = window_text(settings.window_keys, settings.sinks, settings.decode_name(), -1);
  for (const EvaluatedPattern& pattern : patterns) {
    if (!pattern.given.selection) continue;
    const selection::Selection& selection = *pattern.given.selection;
    const std::string shared = examples_shared(selection, inputs.data_sets.front());
    if (!shared.empty()) {
      inputs.warnings.push_back("the layers of " + pattern.name + " (" + pattern.file + ") were chosen on " + shared +
                                ", so its figures are better than on others: evaluate on a held-out set");
    }
    // A plan's windows are its own, whatever the window of the others.
    const bool is_plan = !selection.layer_windows.empty();
    const std::string there =
        window_text(is_plan ? settings.window_keys : selection.window_keys, selection.sinks, selection.decode, -1);
    if (there != here) {
      inputs.warnings.push_back("the layers of " + pattern.name + " (" + pattern.file + ") were chosen with " + there +
                                ", and are evaluated with " + here);
    }
  }
}

evaluation::ServedModel served_model(const model::ModelConfig& config) {
  return {.n_layers = config.n_layers,
          .hidden = config.hidden,
          .ffn = config.mean_active_ffn(),
          .vocab = config.vocab,
          .n_heads = config.heads.n_heads,
          .n_kv_heads = config.heads.n_kv_heads,
          .head_dim = config.heads.head_dim,
          .kv_element_bytes = kernels::size_bytes(config.checkpoint_dtype)};
}

bool has_heads(const std::vector<EvaluatedPattern>& patterns) {
  return std::ranges::any_of(patterns, [](const auto& pattern) { return !pattern.given.windowed_heads.empty(); });
}

// The key heads with full attention of each layer, where a plan of heads is among the patterns.
stats::Table<uint8_t> full_heads_of(const std::vector<EvaluatedPattern>& patterns, const run::Inputs& inputs) {
  if (!has_heads(patterns)) return {};
  const int64_t n_layers = inputs.config.n_layers;
  const int64_t n_heads = inputs.config.heads.n_kv_heads;
  stats::Table<uint8_t> full(static_cast<int64_t>(patterns.size()) * n_layers, n_heads);
  for (int64_t row = 0; row < full.rows; ++row) {
    const selection::NamedPattern& given = patterns[static_cast<std::size_t>(row / n_layers)].given;
    const int64_t layer = row % n_layers;
    for (int64_t head = 0; head < n_heads; ++head) {
      const bool is_windowed = given.windowed_heads.empty()
                                   ? given.windowed[static_cast<std::size_t>(layer)]
                                   : given.windowed_heads[static_cast<std::size_t>(layer * n_heads + head)];
      full(row, head) = is_windowed ? 0 : 1;
    }
  }
  return full;
}

// What each layer sees, where a plan is among the patterns.
stats::Table<int64_t> window_keys_of(const std::vector<EvaluatedPattern>& patterns, const run::Inputs& inputs) {
  const auto is_plan = [](const EvaluatedPattern& pattern) { return !pattern.given.windows.empty(); };
  if (std::ranges::none_of(patterns, is_plan) && !has_heads(patterns)) return {};
  const kernels::Window window{.keys = inputs.settings.window_keys};
  stats::Table<int64_t> keys(static_cast<int64_t>(patterns.size()), inputs.config.n_layers);
  for (int64_t p = 0; p < keys.rows; ++p) {
    const engine::LayerWindows windows =
        inputs.settings.layer_windows(patterns[static_cast<std::size_t>(p)].windows(), window);
    for (int64_t l = 0; l < keys.cols; ++l) {
      const kernels::Window& seen = windows[static_cast<std::size_t>(l)].window;
      keys(p, l) = seen == kernels::full_attention() ? 0 : seen.keys;
    }
  }
  return keys;
}

// The types of keys and values, where a pattern has any.
stats::Table<uint8_t> kv_types_of(const std::vector<EvaluatedPattern>& patterns, const run::Inputs& inputs) {
  const auto has_types = [](const EvaluatedPattern& pattern) { return !pattern.given.kv.empty(); };
  if (std::ranges::none_of(patterns, has_types)) return {};
  stats::Table<uint8_t> types(static_cast<int64_t>(patterns.size()), inputs.config.n_layers);
  for (int64_t p = 0; p < types.rows; ++p) {
    const std::vector<KvType>& kv = patterns[static_cast<std::size_t>(p)].given.kv;
    for (std::size_t l = 0; l < kv.size(); ++l) types(p, static_cast<int64_t>(l)) = static_cast<uint8_t>(kv[l]);
  }
  return types;
}

evaluation::EvaluationTable table_of(const std::vector<EvaluatedPattern>& patterns, const run::Inputs& inputs,
                                     const run::ScoreTable& cells) {
  const run::DataSet& data = inputs.data_sets.front();
  evaluation::EvaluationTable table;
  const auto n_patterns = static_cast<int64_t>(patterns.size());
  table.full_attention = stats::Table<uint8_t>(n_patterns, inputs.config.n_layers);
  table.native_window = inputs.settings.native_windows();
  table.window_keys = window_keys_of(patterns, inputs);
  table.full_heads = full_heads_of(patterns, inputs);
  table.kv = kv_types_of(patterns, inputs);
  table.nll = stats::Table<double>(n_patterns, data.n_examples);
  table.exact_match = stats::Table<uint8_t>(n_patterns, data.n_examples);
  table.token_accuracy = stats::Table<double>(n_patterns, data.n_examples);
  table.kl = stats::Table<double>(n_patterns, data.n_examples);
  for (int64_t e = 0; e < data.n_examples; ++e) {
    const auto index = static_cast<std::size_t>(e);
    table.example_id.push_back(data.corpus.example_id[index]);
    table.token_hash.push_back(data.corpus.token_hash(e));
    if (!data.corpus.source.empty()) table.source.push_back(data.corpus.source[index]);
    table.answer_tokens.push_back(data.n_answer(e));
    table.prompt_tokens.push_back(data.corpus.answer_start[index]);
  }
  for (int64_t p = 0; p < n_patterns; ++p) {
    const EvaluatedPattern& pattern = patterns[static_cast<std::size_t>(p)];
    table.pattern.push_back(pattern.name);
    for (const int64_t layer : pattern.given.full_layers) table.full_attention(p, layer) = 1;
    for (int64_t e = 0; e < data.n_examples; ++e) {
      const engine::Score score = cells.get(e, pattern.variant, data.n_answer(e));
      table.nll(p, e) = score.nll_nats;
      table.exact_match(p, e) = score.exact_match ? 1 : 0;
      table.token_accuracy(p, e) = score.token_accuracy;
      table.kl(p, e) = score.kl_nats;
    }
  }
  return table;
}

// A pattern with types says what each of its layers sees, as a plan does. Takes the checkpoint's scales where one has
// fp8. Throws Error(kUsage) where texts would be written with rows that read keys as computed beside those that do not.
void take_types(const run::RunOptions& options, std::vector<EvaluatedPattern>& patterns, run::Inputs& inputs) {
  const run::Settings& settings = inputs.settings;
  for (EvaluatedPattern& pattern : patterns) {
    selection::NamedPattern& given = pattern.given;
    if (given.kv.empty()) continue;
    if (options.generate > 0 && settings.tail_rows) {
      fail(ExitCode::kUsage, "--generate writes " + pattern.name +
                                 " from one cache, whose keys and values all rows read in its types; leave out "
                                 "--tail-rows");
    }
    for (std::size_t l = 0; given.windows.size() < given.windowed.size(); ++l) {
      const bool is_native = settings.rules.has_native(l);
      const int64_t keys = is_native ? settings.rules.native_window.keys : settings.window_keys;
      given.windows.push_back(given.windowed[l] ? keys : 0);
    }
    if (std::ranges::find(given.kv, KvType::kFp8) != given.kv.end()) inputs.take_kv_scales();
  }
}

// Hash of everything that decides what is in results.h5.
std::string results_key(const run::RunOptions& options, const std::vector<EvaluatedPattern>& patterns,
                        const evaluation::GenerationSettings& generation, const run::RunSummary& summary) {
  const run::DataSet& data = summary.inputs.data_sets.front();
  nlohmann::json key = {
      {"measurement", summary.identity.hash()}, {"examples", data.n_examples}, {"seed", options.seed},
      {"baseline", options.baseline},           {"program", options.version},  {"warnings", summary.inputs.warnings}};
  if (generation.max_new_tokens > 0) key["texts"] = texts_key(generation, summary.identity.hash());
  for (const EvaluatedPattern& pattern : patterns) {
    key["patterns"].push_back({pattern.name, pattern.windows().name()});
  }
  return sha256_of(json_text(key, -1));
}

bool has_settings(const evaluation::EvaluationOptions& used, const evaluation::EvaluationOptions& wanted) {
  return used.seed == wanted.seed && used.n_resamples == wanted.n_resamples && used.baseline == wanted.baseline &&
         used.margin == wanted.margin;
}

}  // namespace

EvaluationInputs load_evaluation(const run::RunOptions& options) {
  run::check_options(options);
  EvaluationInputs read;
  run::Inputs& inputs = read.inputs;
  inputs.kind = run::kind_of(options);
  inputs.with_kl = true;
  inputs.config = model::read_config(options.model);
  inputs.settings = run::resolve_window(options);
  inputs.settings.base = engine::Pattern(static_cast<std::size_t>(inputs.config.n_layers), false);
  inputs.settings.base_name = selection::pattern_name(inputs.settings.base);
  run::take_layer_rules(options, inputs.config, inputs.settings);
  read.patterns = read_patterns(options, inputs);
  keep_native_windows(read.patterns, inputs);
  check_heads(options, read.patterns, inputs);
  check_baseline(options.baseline, read.patterns);
  evaluation::parse_margin(options.margin);  // refused before anything is measured
  inputs.open_checkpoint(options.model);
  take_types(options, read.patterns, inputs);
  std::set<int64_t> wanted;
  for (EvaluatedPattern& pattern : read.patterns) {
    if (pattern.given.windowed == inputs.settings.base && pattern.given.kv.empty()) continue;
    pattern.variant = inputs.number_of(pattern.windows());
    wanted.insert(pattern.variant);
  }
  inputs.wanted.assign(wanted.begin(), wanted.end());
  for (const EvaluatedPattern& pattern : read.patterns) {
    if (!pattern.file.empty()) inputs.other_files.emplace_back(pattern.file);
  }
  inputs.data_sets.push_back(run::read_data_set("evaluation", options.data, inputs.config.vocab, options.limit));
  run::check_data_sets(options, inputs);
  warn_of_selections(read.patterns, inputs);
  read.generation = generation_settings(options, inputs);
  return read;
}

void check_selections(const std::vector<EvaluatedPattern>& patterns, const std::string& checkpoint_sha256) {
  for (const EvaluatedPattern& pattern : patterns) {
    if (!pattern.given.selection) continue;
    if (!pattern.given.selection->has_checksum) note_no_checksum(pattern.file);
    selection::check_selection_model(
        *pattern.given.selection, pattern.file,
        {.n_layers = static_cast<int64_t>(pattern.given.windowed.size()), .checkpoint_sha256 = checkpoint_sha256});
  }
}

evaluation::EvaluationOptions evaluation_options(const run::RunOptions& options) {
  return {.seed = static_cast<uint64_t>(options.seed),
          .baseline = options.baseline,
          .margin = evaluation::parse_margin(options.margin)};
}

evaluation::EvaluationResults finish_evaluation(const run::RunOptions& options,
                                                const std::vector<EvaluatedPattern>& patterns,
                                                const evaluation::GenerationSettings& generation,
                                                run::MeasuringRun& run) {
  runtime::Timeline& timeline = run.session().timeline();
  const runtime::Timeline::Scope part(timeline, runtime::Part::kStatistics);
  const std::filesystem::path path = options.out / "results.h5";
  const std::string key = results_key(options, patterns, generation, run.summary());
  std::optional<EvaluationTexts> texts;
  if (generation.max_new_tokens > 0) texts.emplace(read_texts(run, options, generation));
  if (!options.responses.empty()) texts->write(options.responses, patterns);
  run::RunRecord& record = run.directory().record();
  if (record.informative().value("results_key", "") == key) {
    const auto is_wanted = [wanted = evaluation_options(options)](const evaluation::EvaluationResults& known) {
      return known.statistics.losses && has_settings(known.statistics.options, wanted);
    };
    if (auto known = finished_results(path, evaluation::read_evaluation, is_wanted)) return *std::move(known);
  }
  const run::Inputs& inputs = run.inputs();
  evaluation::EvaluationResults results;
  results.table = table_of(patterns, inputs, run.cells().front());
  if (texts) results.table.generated = texts->table(patterns, generation, inputs);
  results.model = served_model(inputs.config);
  results.window = {.keys = inputs.settings.window_keys,
                    .sinks = inputs.settings.sinks,
                    .decode_full = inputs.settings.decode_full,
                    .tail_rows = inputs.settings.tail_rows.value_or(-1)};
  results.statistics = evaluation::compute_evaluation(results.table, evaluation_options(options));
  record.informative()["patterns"] = nlohmann::json::object();
  for (const EvaluatedPattern& pattern : patterns) {
    record.informative()["patterns"][pattern.name] = {{"full_attention", pattern.given.full_layers},
                                                      {"selection", pattern.file}};
  }
  run::describe_run(run.summary(), record, results.provenance);
  run::check_unchanged(inputs.data_sets.front().corpus);
  const runtime::Timeline::Scope writing(timeline, runtime::Part::kResults);
  evaluation::write_evaluation(path, results);
  record.informative()["results_key"] = key;
  run.directory().write_record();
  return results;
}

}  // namespace winnow::verbs
