#include "results/evaluation/store.h"

// /evaluation of results.h5. The schema is in README.md in this folder.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "base/checksum.h"
#include "base/error.h"
#include "results/evaluation/losses_store.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::evaluation {
namespace {

constexpr const char* kGroup = "evaluation";

// The numbers that are attributes of the group, by name.
template <typename EvaluationOrConst>
auto attributes_of(EvaluationOrConst& r) {
  struct Attribute {
    const char* name;
    decltype(&r.model.hidden) value;
  };
  return std::vector<Attribute>{{"hidden", &r.model.hidden},
                                {"ffn", &r.model.ffn},
                                {"vocabulary", &r.model.vocab},
                                {"heads", &r.model.n_heads},
                                {"kv_heads", &r.model.n_kv_heads},
                                {"head_dim", &r.model.head_dim},
                                {"kv_element_bytes", &r.model.kv_element_bytes},
                                {"window_keys", &r.window.keys},
                                {"sinks", &r.window.sinks},
                                {"tail_rows", &r.window.tail_rows},
                                {"n_resamples", &r.statistics.options.n_resamples}};
}

// The columns over patterns of the statistics: one place for their names, for writer and reader.
struct FigureColumn {
  std::string name;
  std::vector<double>* values;
  storage::Description description;
  bool is_spread = false;  // undefined for one example
};

void add_figures(std::vector<FigureColumn>& columns, const std::string& name, PatternFigures& figures,
                 const storage::Description& description) {
  columns.push_back({name, &figures.mean, description});
  const std::string stem = name.rfind("mean_", 0) == 0 ? name.substr(5) : name;
  columns.push_back(
      {stem + "_ci_low", &figures.ci_low, {description.units, "lower end of the 95 % interval of " + name}, true});
  columns.push_back({stem + "_ci_high", &figures.ci_high, {description.units, "upper end"}, true});
}

void add_comparison(std::vector<FigureColumn>& columns, const std::string& to, Comparison& comparison) {
  const std::string less = " of the pattern less that of " + (to == "full" ? "full attention" : "the " + to);
  add_figures(columns, "nll_minus_" + to, comparison.nll, {storage::kNats, "mean NLL" + less});
  add_figures(columns, "exact_match_minus_" + to, comparison.exact_match, {storage::kOne, "mean exact match" + less});
  add_figures(columns, "token_accuracy_minus_" + to, comparison.token_accuracy,
              {storage::kOne, "mean token accuracy" + less});
  columns.push_back({"mcnemar_p_" + to,
                     &comparison.mcnemar_p,
                     {storage::kOne, "exact two-sided McNemar p of exact match against " +
                                         (to == "full" ? std::string("full attention") : "the " + to)}});
}

std::vector<FigureColumn> columns_of(EvaluationStatistics& s, const EvaluationTable& table) {
  std::vector<FigureColumn> columns;
  add_figures(columns, "mean_nll", s.nll, {storage::kNats, "mean over examples of nll"});
  add_figures(columns, "mean_exact_match", s.exact_match, {storage::kOne, "mean over examples of exact_match"});
  add_figures(columns, "mean_token_accuracy", s.token_accuracy,
              {storage::kOne, "mean over examples of token_accuracy"});
  if (table.kl.rows > 0) add_figures(columns, "mean_kl", s.kl, {storage::kNats, "mean over examples of kl"});
  if (!table.generated.is_empty()) {
    add_figures(columns, "mean_generated_exact_match", s.generated_exact_match,
                {storage::kOne, "mean over examples of generated_exact_match"});
  }
  add_comparison(columns, "full", s.full);
  if (s.baseline) add_comparison(columns, "baseline", *s.baseline);
  return columns;
}

void write_measured(storage::Group& group, const EvaluationTable& table) {
  const int64_t n = table.n_examples();
  const int64_t n_patterns = table.n_patterns();
  const auto by_example = [&](const char* name) { return storage::Variable{name, {"example"}, {n}}; };
  const auto by_cell = [&](const char* name) {
    return storage::Variable{name, {"pattern", "example"}, {n_patterns, n}};
  };
  group.make_dimension("example", n);
  storage::write_coordinate(group, "pattern", table.pattern,
                            {storage::kText, "pattern: which layers keep full attention"});
  std::vector<int64_t> layers;
  for (int64_t l = 0; l < table.n_layers(); ++l) layers.push_back(l);
  storage::write_coordinate(group, "layer", layers, {storage::kOne, "index of the decoder layer"});
  storage::write_variable(group, {"full_attention", {"pattern", "layer"}, {n_patterns, table.n_layers()}},
                          table.full_attention.values, {storage::kOne, "1 where the layer keeps full attention"});
  if (!table.native_window.empty()) {
    storage::write_variable(
        group, {"native_window", {"layer"}, {table.n_layers()}}, table.native_window,
        {storage::kTokens, "keys of the window that a layer has of its own in every pattern, 0: it has none"});
  }
  if (!table.window_keys.values.empty()) {
    storage::write_variable(group, {"layer_window_keys", {"pattern", "layer"}, {n_patterns, table.n_layers()}},
                            table.window_keys.values,
                            {storage::kTokens, "keys that a row of the layer sees, itself included, 0: all"});
  }
  if (!table.full_heads.values.empty()) {
    std::vector<int64_t> heads;
    for (int64_t head = 0; head < table.full_heads.cols; ++head) heads.push_back(head);
    storage::write_coordinate(group, "kv_head", heads, {storage::kOne, "index of the key head in its layer"});
    storage::write_variable(group,
                            {"full_attention_kv_head",
                             {"pattern", "layer", "kv_head"},
                             {n_patterns, table.n_layers(), table.full_heads.cols}},
                            table.full_heads.values, {storage::kOne, "1 where the key head keeps full attention"});
  }
  if (!table.kv.values.empty()) {
    std::vector<std::string> types;
    for (const uint8_t type : table.kv.values) types.emplace_back(kv_type_name(static_cast<KvType>(type)));
    storage::write_variable(
        group, {"layer_kv", {"pattern", "layer"}, {n_patterns, table.n_layers()}}, types,
        {storage::kText, "type of the layer's keys and values: bf16 (as computed), fp8, int8 or int4"});
  }
  storage::write_variable(group, by_example("example_id"), table.example_id,
                          {storage::kText, "identifier of the example"});
  if (!table.source.empty()) {
    storage::write_variable(group, by_example("source"), table.source,
                            {storage::kText, "data set that the example comes from"});
  }
  storage::write_token_hashes(group, table.token_hash);
  storage::write_variable(group, by_example("prompt_tokens"), table.prompt_tokens,
                          {storage::kTokens, "length of the prompt"});
  storage::write_variable(group, by_example("answer_tokens"), table.answer_tokens,
                          {storage::kTokens, "length of the scored answer"});
  storage::write_variable(group, by_cell("nll"), table.nll.values, {storage::kNats, "mean NLL of the answer"});
  storage::write_variable(group, by_cell("exact_match"), table.exact_match.values,
                          {storage::kOne, "1 where greedy decoding gives the answer"});
  storage::write_variable(group, by_cell("token_accuracy"), table.token_accuracy.values,
                          {storage::kOne, "share of answer tokens that are the argmax"});
  if (table.kl.rows == 0) return;
  storage::write_variable(group, by_cell("kl"), table.kl.values,
                          {storage::kNats, "mean over answer tokens of KL(full attention || pattern)"});
}

void write_generated(storage::Group& group, const EvaluationTable& table) {
  const GeneratedTable& generated = table.generated;
  if (generated.is_empty()) return;
  const int64_t n_patterns = table.n_patterns();
  const auto by_cell = [&](const char* name) {
    return storage::Variable{name, {"pattern", "example"}, {n_patterns, table.n_examples()}};
  };
  const auto by_pattern = [&](const char* name) { return storage::Variable{name, {"pattern"}, {n_patterns}}; };
  group.set_attribute<int64_t>(".", "max_new_tokens", generated.settings.max_new_tokens);
  std::string stop_tokens;
  for (const int32_t token : generated.settings.stop_tokens) {
    stop_tokens += (stop_tokens.empty() ? "" : ",") + std::to_string(token);
  }
  group.set_attribute<std::string>(".", "stop_tokens", stop_tokens);
  storage::write_variable(group, by_cell("generated_exact_match"), generated.exact_match.values,
                          {storage::kOne, "1 where the text that was generated freely is the answer"});
  storage::write_variable(group, by_cell("generated_tokens"), generated.tokens.values,
                          {storage::kTokens, "length of that text"});
  storage::write_variable(group, by_cell("generated_stopped"), generated.stopped.values,
                          {storage::kOne, "1 where a stop token ended that text, 0 where max_new_tokens did"});
  storage::write_variable(group, by_cell("generated_cache_bytes"), generated.cache_bytes.values,
                          {"bytes", "keys and values that it was generated with, as allocated"});
  storage::write_variable(group, by_pattern("prefill_rate"), generated.prefill_rate,
                          {"tokens per second", "prompt tokens that a rank computed in a second"});
  storage::write_variable(
      group, by_pattern("decode_rate"), generated.decode_rate,
      {"tokens per second", "new tokens that a rank decoded in a second, texts_together at most at a time"});
  if (std::any_of(generated.decode_rate.begin(), generated.decode_rate.end(), [](double r) { return std::isnan(r); })) {
    group.set_attribute<std::string>("decode_rate", "status", "no token was decoded after the first");
  }
  storage::write_variable(group, by_pattern("texts_together"), generated.texts_together,
                          {storage::kOne, "texts that a rank decoded at a time, at most"});
}

void write_costs(storage::Group& group, const EvaluationResults& results) {
  const EvaluationTable& table = results.table;
  const std::vector<int64_t> lengths(std::begin(kServedLengths), std::end(kServedLengths));
  std::vector<int64_t> n_full;
  std::vector<double> bytes, flop;
  for (int64_t p = 0; p < table.n_patterns(); ++p) {
    n_full.push_back(table.n_full_layers(p));
    const std::vector<ServedWindow> windows = results.windows_of(p);
    for (const int64_t length : lengths) {
      bytes.push_back(kv_cache_bytes(results.model, windows, length));
      flop.push_back(prefill_flop(results.model, windows, length));
    }
  }
  const std::vector<int64_t> shape = {table.n_patterns(), static_cast<int64_t>(lengths.size())};
  storage::write_coordinate(group, "kv_length", lengths, {storage::kTokens, "length of a sequence"});
  storage::write_variable(group, {"full_layers", {"pattern"}, {table.n_patterns()}}, n_full,
                          {storage::kOne, "number of layers that keep full attention"});
  storage::write_variable(group, {"kv_cache_bytes", {"pattern", "kv_length"}, shape}, bytes,
                          {"bytes", "keys and values of one sequence of that length"});
  storage::write_variable(group, {"prefill_flop", {"pattern", "kv_length"}, shape}, flop,
                          {"flop", "floating-point operations of a prompt of that length"});
}

// The fronts by variable; those that are empty are not in the file.
struct FrontColumn {
  const char* name;
  std::vector<uint8_t>* is_on;
  const char* what;
  bool is_always = true;
};

std::vector<FrontColumn> fronts_of(EvaluationStatistics& s) {
  return {{"on_front_exact_match", &s.on_front_exact_match, "many exact matches"},
          {"on_front_nll", &s.on_front_nll, "low an NLL"},
          {"on_front_token_accuracy", &s.on_front_token_accuracy, "high a token accuracy", false},
          {"on_front_kl", &s.on_front_kl, "low a KL", false}};
}

void write_statistics(storage::Group& group, const EvaluationStatistics& statistics, const EvaluationTable& table) {
  EvaluationStatistics s = statistics;
  const auto n_patterns = static_cast<int64_t>(s.nll.mean.size());
  for (const FigureColumn& column : columns_of(s, table)) {
    storage::write_variable(group, {column.name, {"pattern"}, {n_patterns}}, *column.values, column.description);
    if (column.is_spread && !s.spread_status.empty()) {
      group.set_attribute<std::string>(column.name, "status", s.spread_status);
    }
  }
  const auto by_pattern = [&](const char* name) { return storage::Variable{name, {"pattern"}, {n_patterns}}; };
  if (s.losses) write_losses(group, *s.losses, table);
  for (const FrontColumn& front : fronts_of(s)) {
    if (front.is_on->empty()) continue;
    storage::write_variable(group, by_pattern(front.name), *front.is_on,
                            {storage::kOne, std::string("1 where no other pattern has as ") + front.what +
                                                " with as few layers of full attention"});
  }
}

int64_t read_number(const storage::Group& group, const std::string& name) {
  const std::optional<int64_t> value = group.integer_attribute(".", name);
  if (!value) fail(ExitCode::kBadData, group.where(".") + ": expected the attribute " + name + ", found none");
  return *value;
}

GeneratedTable read_generated(const storage::Group& group, int64_t n_patterns, int64_t n) {
  GeneratedTable generated;
  if (!group.contains("generated_exact_match")) return generated;
  generated.settings.max_new_tokens = read_number(group, "max_new_tokens");
  const std::string stop_tokens = group.string_attribute(".", "stop_tokens").value_or("");
  for (std::size_t at = 0; at < stop_tokens.size();) {
    const std::size_t comma = std::min(stop_tokens.find(',', at), stop_tokens.size());
    int32_t token = 0;
    const auto [end, error] = std::from_chars(stop_tokens.data() + at, stop_tokens.data() + comma, token);
    if (error != std::errc() || end != stop_tokens.data() + comma) {
      fail(ExitCode::kBadData, group.where(".") + ": stop_tokens: expected token ids, found \"" + stop_tokens + "\"");
    }
    generated.settings.stop_tokens.push_back(token);
    at = comma + 1;
  }
  generated.exact_match = storage::read_table<uint8_t>(group, "generated_exact_match", n_patterns, n);
  generated.tokens = storage::read_table<int64_t>(group, "generated_tokens", n_patterns, n);
  generated.stopped = storage::read_table<uint8_t>(group, "generated_stopped", n_patterns, n);
  generated.cache_bytes = storage::read_table<int64_t>(group, "generated_cache_bytes", n_patterns, n);
  generated.prefill_rate = storage::read_variable<double>(group, "prefill_rate", {n_patterns});
  generated.decode_rate = storage::read_variable<double>(group, "decode_rate", {n_patterns});
  generated.texts_together = storage::read_variable<int64_t>(group, "texts_together", {n_patterns});
  return generated;
}

EvaluationTable read_measured(const storage::Group& group) {
  EvaluationTable table;
  table.pattern = group.read<std::string>("pattern", 1).values;
  table.example_id = group.read<std::string>("example_id", 1).values;
  const int64_t n = table.n_examples();
  const int64_t n_patterns = table.n_patterns();
  const auto n_layers = static_cast<int64_t>(group.read<int64_t>("layer", 1).values.size());
  table.full_attention = storage::read_table<uint8_t>(group, "full_attention", n_patterns, n_layers);
  if (group.contains("native_window")) {
    table.native_window = storage::read_variable<int64_t>(group, "native_window", {n_layers});
  }
  if (group.contains("layer_window_keys")) {
    table.window_keys = storage::read_table<int64_t>(group, "layer_window_keys", n_patterns, n_layers);
  }
  if (group.contains("full_attention_kv_head")) {
    table.full_heads.rows = n_patterns * n_layers;
    table.full_heads.cols = static_cast<int64_t>(group.read<int64_t>("kv_head", 1).values.size());
    table.full_heads.values =
        storage::read_variable<uint8_t>(group, "full_attention_kv_head", {n_patterns, n_layers, table.full_heads.cols});
  }
  if (group.contains("layer_kv")) {
    table.kv = stats::Table<uint8_t>(n_patterns, n_layers);
    const std::vector<KvType> types = storage::read_kv_types(group, "layer_kv", {n_patterns, n_layers});
    std::ranges::transform(types, table.kv.values.begin(), [](KvType type) { return static_cast<uint8_t>(type); });
  }
  if (group.contains("source")) table.source = storage::read_variable<std::string>(group, "source", {n});
  table.token_hash = storage::read_token_hashes(group, n);
  table.prompt_tokens = storage::read_variable<int64_t>(group, "prompt_tokens", {n});
  table.answer_tokens = storage::read_variable<int64_t>(group, "answer_tokens", {n});
  table.nll = storage::read_table<double>(group, "nll", n_patterns, n);
  table.exact_match = storage::read_table<uint8_t>(group, "exact_match", n_patterns, n);
  table.token_accuracy = storage::read_table<double>(group, "token_accuracy", n_patterns, n);
  if (group.contains("kl")) table.kl = storage::read_table<double>(group, "kl", n_patterns, n);
  table.generated = read_generated(group, n_patterns, n);
  check_evaluation(table, group.where("."));
  return table;
}

// Of the pattern that a comparison is with.
int64_t reference_of(const storage::Group& group, const EvaluationTable& table, const std::string& name) {
  const std::optional<int64_t> reference = table.find(name);
  if (!reference) fail(ExitCode::kBadData, group.where("pattern") + ": expected " + name + " among them, found none");
  return *reference;
}

}  // namespace

void write_evaluation(const std::filesystem::path& path, const EvaluationResults& results) {
  check_evaluation(results.table, path.string());
  storage::File file = storage::File::create(path);
  storage::Group root = file.root();
  storage::write_root(root, "How well patterns of full and windowed layers answer", results.provenance);
  storage::Group group = root.create_group(kGroup);
  const EvaluationOptions& options = results.statistics.options;
  for (const auto& attribute : attributes_of(results)) {
    group.set_attribute<int64_t>(".", attribute.name, *attribute.value);
  }
  group.set_attribute<int64_t>(".", "seed", static_cast<int64_t>(options.seed));
  group.set_attribute<int64_t>(".", "decode_full", results.window.decode_full ? 1 : 0);
  group.set_attribute<std::string>(".", "baseline", options.baseline);
  write_measured(group, results.table);
  write_generated(group, results.table);
  write_costs(group, results);
  write_statistics(group, results.statistics, results.table);
  storage::write_provenance(root.create_group("provenance"), results.provenance);
  file.commit();
}

EvaluationResults read_evaluation(const std::filesystem::path& path) {
  const storage::File file = storage::File::open(path);
  storage::require_format(file, storage::kResultsFormat, storage::kResultsVersion);
  const storage::Group root = file.root();
  const storage::Group group = root.group(kGroup);
  EvaluationResults results;
  results.table = read_measured(group);
  for (const auto& attribute : attributes_of(results)) *attribute.value = read_number(group, attribute.name);
  results.model.n_layers = results.table.n_layers();
  results.window.decode_full = read_number(group, "decode_full") != 0;
  EvaluationStatistics& s = results.statistics;
  s.options.seed = static_cast<uint64_t>(read_number(group, "seed"));
  s.options.baseline = group.string_attribute(".", "baseline").value_or("");
  const std::optional<int64_t> full = results.table.full();
  if (!full) fail(ExitCode::kBadData, group.where("full_attention") + ": expected a pattern of ones, found none");
  s.full.reference = *full;
  if (!s.options.baseline.empty()) {
    s.baseline.emplace().reference = reference_of(group, results.table, s.options.baseline);
  }
  const int64_t n_patterns = results.table.n_patterns();
  for (const FigureColumn& column : columns_of(s, results.table)) {
    *column.values = storage::read_variable<double>(group, column.name, {n_patterns});
    if (!column.is_spread) continue;
    s.spread_status = group.string_attribute(column.name, "status").value_or("");
  }
  s.losses = read_losses(group, results.table, *full);
  if (s.losses && s.losses->is_given) s.options.margin = Margin{s.losses->margin, is_share(s.losses->decider().figure)};
  for (const FrontColumn& front : fronts_of(s)) {
    if (!front.is_always && !group.contains(front.name)) continue;
    *front.is_on = storage::read_variable<uint8_t>(group, front.name, {n_patterns});
  }
  results.provenance = storage::read_provenance(root.group("provenance"));
  if (!file.has_checksum()) note_no_checksum(path);
  return results;
}

bool is_evaluation(const std::filesystem::path& path) {
  const storage::File file = storage::File::open(path);
  storage::require_format(file, storage::kResultsFormat, storage::kResultsVersion);
  return file.root().contains_group(kGroup) && !file.root().contains_group("calibration");
}

}  // namespace winnow::evaluation
