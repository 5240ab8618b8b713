#include "results/calibration/store.h"

#include <cmath>
#include <optional>
#include <span>
#include <string_view>

#include "base/checksum.h"
#include "base/error.h"
#include "base/strings.h"
#include "results/calibration/heads_store.h"
#include "results/calibration/signals_store.h"
#include "results/race/store.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::calibration {
namespace {

// ---- measurement ----------------------------------------------------------------------------------------------------

std::vector<double> delta_values(const Measurement& m) {
  std::vector<double> values;
  values.reserve(m.nll.values.size());
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t l = 0; l < m.n_layers(); ++l) values.push_back(m.delta_nll(e, l));
  }
  return values;
}

void write_token_nll(storage::Group& group, const Measurement& m) {
  if (m.token_nll_base.values.empty()) return;
  const int64_t n_tokens = m.token_nll_base.cols;
  const float fill = std::numeric_limits<float>::quiet_NaN();
  group.make_dimension("answer_token", n_tokens);
  storage::write_variable<float>(group, {"token_nll_base", {"example", "answer_token"}, {m.n_examples(), n_tokens}},
                                 m.token_nll_base.values,
                                 {"nats", "NLL of each answer token under the base; NaN-padded"});
  group.set_attribute<float>("token_nll_base", "_FillValue", fill);
  storage::write_variable<float>(
      group, {"token_nll", {"example", "layer", "answer_token"}, {m.n_examples(), m.n_layers(), n_tokens}},
      m.token_nll.values, {"nats", "NLL of each answer token with that one layer switched; NaN-padded"});
  group.set_attribute<float>("token_nll", "_FillValue", fill);
}

void write_by_window(storage::Group& group, const Measurement& m) {
  const FiguresByWindow& figures = m.by_window;
  if (figures.n_windows() == 0) return;
  const auto variable = [&](const char* name) {
    return storage::Variable{name, {"example", "layer", "window"}, {m.n_examples(), m.n_layers(), figures.n_windows()}};
  };
  std::vector<double> delta;
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      for (int64_t w = 0; w < figures.n_windows(); ++w) delta.push_back(m.delta_nll_by_window(e, l, w));
    }
  }
  storage::write_coordinate(group, "window", figures.window, {storage::kTokens, "window of the one windowed layer"});
  storage::write_variable(group, variable("nll_by_window"), figures.nll.values,
                          {storage::kNats, "mean NLL of the answer with that one layer under that window"});
  storage::write_variable(group, variable("delta_nll_by_window"), delta,
                          {storage::kNats, "NLL with the layer under that window less NLL with the layer full"});
  storage::write_variable(
      group, variable("exact_match_by_window"), figures.exact_match.values,
      {storage::kOne, "1 where greedy decoding with that one layer under that window gives the answer"});
  storage::write_variable(
      group, variable("token_accuracy_by_window"), figures.token_accuracy.values,
      {storage::kOne, "share of answer tokens that are the argmax with that one layer under that window"});
}

void write_by_setting(storage::Group& group, const Measurement& m) {
  const FiguresBySetting& figures = m.by_setting;
  const int64_t n = figures.n_settings();
  if (n == 0) return;
  const auto variable = [&](const char* name) {
    return storage::Variable{name, {"example", "layer", "setting"}, {m.n_examples(), m.n_layers(), n}};
  };
  std::vector<double> delta;
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      for (int64_t s = 0; s < n; ++s) delta.push_back(m.delta_nll_by_setting(e, l, s));
    }
  }
  const std::vector<std::string> types = names_of(figures.kv);
  group.make_dimension("setting", n);
  storage::write_variable(group, {"setting_window", {"setting"}, {n}}, figures.window,
                          {storage::kTokens, "window of the one layer, as given; 0: full attention"});
  storage::write_variable(
      group, {"setting_kv", {"setting"}, {n}}, types,
      {storage::kText, "type of the layer's keys and values: bf16 (as computed), fp8, int8 or int4"});
  storage::write_variable(group, variable("nll_by_setting"), figures.nll.values,
                          {storage::kNats, "mean NLL of the answer with that one layer under that setting"});
  storage::write_variable(group, variable("delta_nll_by_setting"), delta,
                          {storage::kNats, "NLL with the layer under that setting less NLL with the layer full"});
  storage::write_variable(
      group, variable("exact_match_by_setting"), figures.exact_match.values,
      {storage::kOne, "1 where greedy decoding with that one layer under that setting gives the answer"});
  storage::write_variable(
      group, variable("token_accuracy_by_setting"), figures.token_accuracy.values,
      {storage::kOne, "share of answer tokens that are the argmax with that one layer under that setting"});
}

// Cells beyond a layer's examples say that they are none, each in its type's way.
void describe_missing_cells(storage::Group& group, const Measurement& m) {
  if (m.layer_examples.empty()) return;
  storage::write_variable(group, {"layer_examples", {"layer"}, {m.n_layers()}}, m.layer_examples,
                          {storage::kOne, "first examples that the layer was measured on"});
  std::vector<std::string> ways = {""};
  if (m.by_window.n_windows() > 0) ways.emplace_back("_by_window");
  if (m.by_setting.n_settings() > 0) ways.emplace_back("_by_setting");
  for (const std::string& way : ways) {
    for (const char* figure : {"nll", "delta_nll", "token_accuracy", "exact_match"}) {
      group.set_attribute<std::string>(figure + way, "status", kBeyondLayerExamples);
    }
    group.set_attribute<uint8_t>("exact_match" + way, "_FillValue", kNotMeasured);
  }
}

void write_measurement(storage::Group group, const Measurement& m) {
  const int64_t n = m.n_examples();
  const std::vector<int64_t> per_example = {n};
  const std::vector<int64_t> per_cell = {n, m.n_layers()};
  const auto by_example = [&](const char* name) { return storage::Variable{name, {"example"}, per_example}; };
  const auto by_cell = [&](const char* name) { return storage::Variable{name, {"example", "layer"}, per_cell}; };
  group.make_dimension("example", n);
  storage::write_coordinate(group, "layer", m.layer, {storage::kOne, "index of the decoder layer"});
  storage::write_variable(group, by_example("example_id"), m.example_id, {storage::kText, "identifier of the example"});
  if (!m.source.empty()) {
    storage::write_variable(group, by_example("source"), m.source,
                            {storage::kText, "data set that the example comes from"});
  }
  storage::write_token_hashes(group, m.token_hash);
  storage::write_variable(group, by_example("prompt_tokens"), m.prompt_tokens,
                          {storage::kTokens, "length of the prompt"});
  storage::write_variable(group, by_example("answer_tokens"), m.answer_tokens,
                          {storage::kTokens, "length of the scored answer"});
  const std::vector<uint8_t> windowed(m.layer_windowed_in_base.begin(), m.layer_windowed_in_base.end());
  storage::write_variable(
      group, {"layer_windowed_in_base", {"layer"}, {m.n_layers()}}, windowed,
      {storage::kOne, "1 where the base pattern has a window in the layer, 0 where it has full attention"});
  storage::write_variable(group, by_example("nll_base"), m.nll_base,
                          {storage::kNats, "mean NLL of the answer under the base"});
  storage::write_variable(group, by_cell("nll"), m.nll.values,
                          {storage::kNats, "mean NLL of the answer with that one layer switched"});
  storage::write_variable(group, by_cell("delta_nll"), delta_values(m),
                          {storage::kNats, "NLL with the layer windowed less NLL with the layer full"});
  storage::write_variable(group, by_example("exact_match_base"), m.exact_match_base,
                          {storage::kOne, "1 where greedy decoding under the base gives the answer"});
  storage::write_variable(group, by_cell("exact_match"), m.exact_match.values,
                          {storage::kOne, "1 where greedy decoding with that one layer switched gives the answer"});
  storage::write_variable(group, by_example("token_accuracy_base"), m.token_accuracy_base,
                          {storage::kOne, "share of answer tokens that are the argmax under the base"});
  storage::write_variable(group, by_cell("token_accuracy"), m.token_accuracy.values,
                          {storage::kOne, "share of answer tokens that are the argmax with that one layer switched"});
  write_by_window(group, m);
  write_by_setting(group, m);
  write_token_nll(group, m);
  write_signals(group, m);
  describe_missing_cells(group, m);
}

// ---- statistics -----------------------------------------------------------------------------------------------------

void write_options(storage::Group& group, const StatisticsOptions& options) {
  group.set_attribute<int64_t>(".", "seed", static_cast<int64_t>(options.seed));
  group.set_attribute<int64_t>(".", "top_k", options.top_k);
  group.set_attribute<int64_t>(".", "n_resamples", options.n_resamples);
  group.set_attribute<int64_t>(".", "n_permutations", options.n_permutations);
  group.set_attribute<int64_t>(".", "n_splits", options.n_splits);
}

void write_ranking(storage::Group group, const Statistics& statistics) {
  const Ranking& r = statistics.ranking;
  const auto n_layers = static_cast<int64_t>(r.layer.size());
  const auto by_layer = [&](const char* name) { return storage::Variable{name, {"layer"}, {n_layers}}; };
  write_options(group, statistics.options);
  storage::write_coordinate(group, "layer", r.layer, {storage::kOne, "index of the decoder layer"});
  storage::write_coordinate(group, "budget", r.budget, {storage::kOne, "K: number of layers that keep full attention"});
  storage::write_variable(group, by_layer("mean_delta_nll"), r.mean_delta_nll,
                          {storage::kNats, "mean over examples of delta_nll"});
  storage::write_variable(group, by_layer("median_delta_nll"), r.median_delta_nll,
                          {storage::kNats, "median over examples of delta_nll"});
  storage::write_variable(group, by_layer("standard_error"), r.standard_error,
                          {storage::kNats, "standard error of mean_delta_nll"});
  storage::write_variable(group, by_layer("ci_low"), r.ci_low,
                          {storage::kNats, "lower end of the 95 % interval of mean_delta_nll"});
  storage::write_variable(group, by_layer("ci_high"), r.ci_high,
                          {storage::kNats, "upper end of the 95 % interval of mean_delta_nll"});
  storage::write_variable(group, by_layer("rank"), r.rank,
                          {storage::kOne, "rank by mean_delta_nll: 1 keeps full attention first"});
  storage::write_variable(group, by_layer("rank_low"), r.rank_low,
                          {storage::kOne, "lower end of the 95 % interval of rank"});
  storage::write_variable(group, by_layer("rank_high"), r.rank_high,
                          {storage::kOne, "upper end of the 95 % interval of rank"});
  storage::write_variable(
      group, by_layer("exact_match_drop"), r.exact_match_drop,
      {storage::kOne, "mean over examples of exact match with the layer full less with the layer windowed"});
  storage::write_variable(
      group, by_layer("token_accuracy_drop"), r.token_accuracy_drop,
      {storage::kOne, "mean over examples of token accuracy with the layer full less with the layer windowed"});
  storage::write_variable(group, {"p_top_k", {"budget", "layer"}, {r.p_top_k.rows, r.p_top_k.cols}}, r.p_top_k.values,
                          {storage::kOne, "share of bootstrap resamples in which the layer is among the top K"});
  write_signal_means(group, r);
  if (r.spread_status.empty()) return;
  for (const char* name : {"standard_error", "ci_low", "ci_high", "rank_low", "rank_high", "p_top_k"}) {
    group.set_attribute<std::string>(name, "status", r.spread_status);
  }
}

void write_deconfounding(storage::Group group, const Deconfounding& d) {
  storage::write_estimate(group, "spearman_rho", "spearman", d.spearman_rho,
                          "Spearman's rho over layers between the mean deltas of the calibration and the control set");
  storage::write_figure(group, "spearman_p", d.spearman_p, "two-sided permutation p of spearman_rho");
  group.write_scalar<int64_t>("n_paired", d.n_paired);
  storage::describe(group, "n_paired", {storage::kOne, "examples that both sets hold, resampled in pairs"});
  group.write_scalar<int64_t>("top_k", d.top_k);
  storage::describe(group, "top_k", {storage::kOne, "K of overlap and jaccard"});
  storage::write_figure(group, "overlap", d.overlap, "number of layers in the top K of both sets");
  storage::write_figure(group, "jaccard", d.jaccard, "overlap over the number of layers in either top K");
  storage::write_figure(group, "magnitude_ratio", d.magnitude_ratio,
                        "mean over layers of |mean delta|, calibration over control");
}

void write_reliability(storage::Group group, const Reliability& r) {
  storage::write_estimate(group, "split_half", "split_half", r.split_half,
                          "split-half reliability of the ranking, Spearman-Brown corrected");
  storage::write_estimate(group, "rho_exact_match", "rho_exact_match", r.rho_exact_match,
                          "Spearman's rho over layers of mean_delta_nll with exact_match_drop");
  storage::write_estimate(group, "rho_token_accuracy", "rho_token_accuracy", r.rho_token_accuracy,
                          "Spearman's rho over layers of mean_delta_nll with token_accuracy_drop");
}

void check_fit(const Results& results, const std::string& path) {
  check_measurement(results.calibration, path + ": calibration");
  for (const auto& [name, control] : results.controls) {
    if (!storage::is_valid_name(name)) fail(ExitCode::kInternal, path + ": control \"" + name + "\" is no valid name");
    check_measurement(control, path + ": control " + name);
  }
  for (const storage::ProvenanceEntry& entry : results.provenance.entries()) {
    if (!storage::is_valid_name(entry.name))
      fail(ExitCode::kInternal, path + ": \"" + entry.name + "\" is no valid name");
  }
  if (results.statistics.ranking.layer != results.calibration.layer) {
    fail(ExitCode::kInternal, path + ": the statistics are of other layers than the measurement");
  }
}

// ---- reading
// ---------------------------------------------------------------------------------------------------------

void read_token_nll(const storage::Group& group, Measurement& m) {
  if (!group.contains("token_nll_base")) return;
  const std::vector<int64_t> shape = group.shape("token_nll_base");
  const int64_t n_tokens = shape.size() == 2 ? shape[1] : 0;
  m.token_nll_base = storage::read_table<float>(group, "token_nll_base", m.n_examples(), n_tokens);
  m.token_nll.rows = m.n_examples() * m.n_layers();
  m.token_nll.cols = n_tokens;
  m.token_nll.values = storage::read_variable<float>(group, "token_nll", {m.n_examples(), m.n_layers(), n_tokens});
}

// A table of n columns for each example and layer.
template <typename T>
void read_cells(const storage::Group& group, const char* name, const Measurement& m, int64_t n,
                stats::Table<T>& table) {
  table.rows = m.n_examples() * m.n_layers();
  table.cols = n;
  table.values = storage::read_variable<T>(group, name, {m.n_examples(), m.n_layers(), n});
}

void read_by_window(const storage::Group& group, Measurement& m) {
  if (!group.contains("nll_by_window")) return;
  FiguresByWindow& figures = m.by_window;
  figures.window = group.read<int64_t>("window", 1).values;
  read_cells(group, "nll_by_window", m, figures.n_windows(), figures.nll);
  read_cells(group, "exact_match_by_window", m, figures.n_windows(), figures.exact_match);
  read_cells(group, "token_accuracy_by_window", m, figures.n_windows(), figures.token_accuracy);
}

void read_by_setting(const storage::Group& group, Measurement& m) {
  if (!group.contains("nll_by_setting")) return;
  FiguresBySetting& figures = m.by_setting;
  figures.window = group.read<int64_t>("setting_window", 1).values;
  figures.kv = storage::read_kv_types(group, "setting_kv", {figures.n_settings()});
  read_cells(group, "nll_by_setting", m, figures.n_settings(), figures.nll);
  read_cells(group, "exact_match_by_setting", m, figures.n_settings(), figures.exact_match);
  read_cells(group, "token_accuracy_by_setting", m, figures.n_settings(), figures.token_accuracy);
}

Measurement read_measurement(const storage::Group& group) {
  Measurement m;
  m.example_id = group.read<std::string>("example_id", 1).values;
  m.layer = group.read<int64_t>("layer", 1).values;
  const int64_t n = m.n_examples();
  const int64_t n_layers = m.n_layers();
  if (group.contains("source")) m.source = storage::read_variable<std::string>(group, "source", {n});
  m.token_hash = storage::read_token_hashes(group, n);
  m.answer_tokens = storage::read_variable<int64_t>(group, "answer_tokens", {n});
  m.prompt_tokens = storage::read_variable<int64_t>(group, "prompt_tokens", {n});
  for (const uint8_t flag : storage::read_variable<uint8_t>(group, "layer_windowed_in_base", {n_layers})) {
    m.layer_windowed_in_base.push_back(flag != 0);
  }
  if (group.contains("layer_examples")) {
    m.layer_examples = storage::read_variable<int64_t>(group, "layer_examples", {n_layers});
  }
  m.nll_base = storage::read_variable<double>(group, "nll_base", {n});
  m.exact_match_base = storage::read_variable<uint8_t>(group, "exact_match_base", {n});
  m.token_accuracy_base = storage::read_variable<double>(group, "token_accuracy_base", {n});
  m.nll = storage::read_table<double>(group, "nll", n, n_layers);
  m.exact_match = storage::read_table<uint8_t>(group, "exact_match", n, n_layers);
  m.token_accuracy = storage::read_table<double>(group, "token_accuracy", n, n_layers);
  read_by_window(group, m);
  read_by_setting(group, m);
  read_token_nll(group, m);
  read_signals(group, m);
  check_measurement(m, group.where("."));
  return m;
}

int64_t read_option(const storage::Group& group, const std::string& name) {
  const std::optional<int64_t> value = group.integer_attribute(".", name);
  if (!value) fail(ExitCode::kBadData, group.where(".") + ": expected the attribute " + name + ", found none");
  return *value;
}

StatisticsOptions read_options(const storage::Group& group) {
  StatisticsOptions options;
  options.seed = static_cast<uint64_t>(read_option(group, "seed"));
  options.top_k = read_option(group, "top_k");
  options.n_resamples = read_option(group, "n_resamples");
  options.n_permutations = read_option(group, "n_permutations");
  options.n_splits = read_option(group, "n_splits");
  return options;
}

Ranking read_ranking(const storage::Group& group) {
  Ranking r;
  r.layer = group.read<int64_t>("layer", 1).values;
  r.budget = group.read<int64_t>("budget", 1).values;
  const auto n_layers = static_cast<int64_t>(r.layer.size());
  const auto by_layer = [&](const char* name) { return storage::read_variable<double>(group, name, {n_layers}); };
  r.mean_delta_nll = by_layer("mean_delta_nll");
  r.median_delta_nll = by_layer("median_delta_nll");
  r.standard_error = by_layer("standard_error");
  r.ci_low = by_layer("ci_low");
  r.ci_high = by_layer("ci_high");
  r.rank = storage::read_variable<int64_t>(group, "rank", {n_layers});
  r.rank_low = by_layer("rank_low");
  r.rank_high = by_layer("rank_high");
  r.exact_match_drop = by_layer("exact_match_drop");
  r.token_accuracy_drop = by_layer("token_accuracy_drop");
  r.p_top_k = storage::read_table<double>(group, "p_top_k", static_cast<int64_t>(r.budget.size()), n_layers);
  read_signal_means(group, r);
  r.spread_status = group.string_attribute("standard_error", "status").value_or("");
  std::vector<bool> seen(r.layer.size(), false);
  for (const int64_t rank : r.rank) {
    if (rank < 1 || rank > n_layers || seen[static_cast<std::size_t>(rank - 1)]) {
      fail(ExitCode::kBadData, group.where("rank") + ": expected each of 1 to " + std::to_string(n_layers) +
                                   " once, found " + std::to_string(rank));
    }
    seen[static_cast<std::size_t>(rank - 1)] = true;
  }
  return r;
}

Deconfounding read_deconfounding(const storage::Group& group) {
  Deconfounding d;
  d.spearman_rho = storage::read_estimate(group, "spearman_rho", "spearman");
  d.spearman_p = storage::read_figure(group, "spearman_p");
  d.n_paired = group.read_scalar<int64_t>("n_paired");
  d.top_k = group.read_scalar<int64_t>("top_k");
  d.overlap = storage::read_figure(group, "overlap");
  d.jaccard = storage::read_figure(group, "jaccard");
  d.magnitude_ratio = storage::read_figure(group, "magnitude_ratio");
  return d;
}

Reliability read_reliability(const storage::Group& group) {
  return {storage::read_estimate(group, "split_half", "split_half"),
          storage::read_estimate(group, "rho_exact_match", "rho_exact_match"),
          storage::read_estimate(group, "rho_token_accuracy", "rho_token_accuracy")};
}

}  // namespace

std::filesystem::path results_file(const std::filesystem::path& path) {
  std::error_code unreadable;  // the reader will say so
  return std::filesystem::is_directory(path, unreadable) ? path / "results.h5" : path;
}

void write_results(const std::filesystem::path& path, const Results& results) {
  check_fit(results, path.string());
  storage::File file = storage::File::create(path);
  storage::Group root = file.root();
  storage::write_root(root, "Which layers must keep full attention: NLL per windowed layer", results.provenance);
  write_measurement(root.create_group("calibration"), results.calibration);
  storage::Group controls = root.create_group("control");
  for (const auto& [name, control] : results.controls) write_measurement(controls.create_group(name), control);
  write_ranking(root.create_group("ranking"), results.statistics);
  storage::Group deconfounding = root.create_group("deconfounding");
  for (const auto& [name, figures] : results.statistics.deconfounding) {
    write_deconfounding(deconfounding.create_group(name), figures);
  }
  write_reliability(root.create_group("reliability"), results.statistics.reliability);
  if (results.statistics.signals) write_comparison(root.create_group("signals"), *results.statistics.signals);
  write_heads(root, results);
  if (results.race) race::write_race(root.create_group("race"), *results.race);
  storage::write_provenance(root.create_group("provenance"), results.provenance);
  file.commit();
}

Results read_results(const std::filesystem::path& path) {
  const storage::File file = storage::File::open(path);
  storage::require_format(file, storage::kResultsFormat, storage::kResultsVersion);
  const storage::Group root = file.root();
  Results results;
  results.calibration = read_measurement(root.group("calibration"));
  const storage::Group controls = root.group("control");
  for (const std::string& name : controls.names()) results.controls[name] = read_measurement(controls.group(name));
  const storage::Group ranking = root.group("ranking");
  results.statistics.options = read_options(ranking);
  results.statistics.ranking = read_ranking(ranking);
  if (results.statistics.ranking.layer != results.calibration.layer) {
    fail(ExitCode::kBadData, ranking.where("layer") + ": differs from the layers of /calibration");
  }
  const storage::Group deconfounding = root.group("deconfounding");
  for (const std::string& name : deconfounding.names()) {
    results.statistics.deconfounding[name] = read_deconfounding(deconfounding.group(name));
  }
  results.statistics.reliability = read_reliability(root.group("reliability"));
  if (root.contains_group("signals")) results.statistics.signals = read_comparison(root.group("signals"));
  read_heads(root, results);
  if (root.contains_group("race")) {
    results.race = race::read_race(root.group("race"));
    const Measurement& m = results.calibration;
    if (results.race->layer != m.layer) {
      fail(ExitCode::kBadData, root.group("race").where("layer") + ": differs from the layers of /calibration");
    }
    results.race->layer_examples =
        m.layer_examples.empty() ? std::vector<int64_t>(m.layer.size(), m.n_examples()) : m.layer_examples;
  }
  results.provenance = storage::read_provenance(root.group("provenance"));
  if (!file.has_checksum()) note_no_checksum(path);
  return results;
}

}  // namespace winnow::calibration
