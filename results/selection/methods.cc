#include "results/selection/methods.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "base/error.h"
#include "base/signal_specs.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "results/selection/pattern.h"
#include "results/selection/weak_figure.h"
#include "results/stats/resampling.h"

namespace winnow::selection {
namespace {

[[noreturn]] void not_measured(const std::string& method, const std::string& what, const std::string& flag) {
  fail(ExitCode::kNoInput, "method " + method + " needs " + what + ", which these results do not have; repeat winnow " +
                               flag + " and select again");
}

std::vector<double> column_means(const stats::Table<double>& table) {
  std::vector<double> mean(stats::at(table.cols), 0.0);
  for (int64_t row = 0; row < table.rows; ++row) {
    for (int64_t col = 0; col < table.cols; ++col) mean[stats::at(col)] += table(row, col);
  }
  for (double& value : mean) value /= static_cast<double>(table.rows);
  return mean;
}

// Columns by falling score; ties by falling mean delta NLL, then by layer.
std::vector<ScoredLayer> ranked(const calibration::Ranking& ranking, const std::vector<double>& score) {
  std::vector<int64_t> order(score.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto key = [&](int64_t c) {
    return std::tuple(-score[stats::at(c)], -ranking.mean_delta_nll[stats::at(c)], ranking.layer[stats::at(c)]);
  };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  std::vector<ScoredLayer> layers;
  for (const int64_t c : order) layers.push_back({ranking.layer[stats::at(c)], score[stats::at(c)]});
  return layers;
}

// ---- methods that rank the measured layers --------------------------------------------------------------------------

// A variable of a signal; where it was not measured, says how to.
const stats::Table<double>& signal_table(const SelectInput& input, const char* method, const SignalSpec& signal,
                                         const char* variable) {
  const stats::Table<double>* table = input.results.calibration.find_signal(variable);
  if (table == nullptr) {
    not_measured(method, std::string("the signal ") + signal.name,
                 std::string("calibrate with --signals ") + signal.name);
  }
  return *table;
}

std::vector<double> signal_means(const SelectInput& input, const std::string& method, const SignalSpec& signal) {
  std::vector<double> mean = column_means(signal_table(input, method.c_str(), signal, signal.ranked));
  for (std::size_t c = 0; c < mean.size(); ++c) {
    if (std::isfinite(mean[c])) continue;
    fail(ExitCode::kBadData, "method " + method + ": the signal " + signal.name + " of layer " +
                                 std::to_string(input.results.calibration.layer[c]) + " is not finite");
  }
  return mean;
}

// Layers with a window of their own, which stays in every pattern.
std::vector<int64_t> native_layers(const calibration::Results& results, int64_t n_layers) {
  const std::string list = results.provenance.text("native_window_layers");
  if (list.empty()) return {};
  return parse_layers(list, n_layers, "/provenance/native_window_layers");
}

int64_t model_layers(const calibration::Results& results) {
  const storage::ProvenanceEntry* entry = results.provenance.find("model_layers");
  const auto* value = entry == nullptr ? nullptr : std::get_if<int64_t>(&entry->value);
  if (value == nullptr || *value < results.calibration.n_layers()) {
    fail(ExitCode::kBadData,
         "the results do not say how many layers the model has (/provenance/model_layers); use the results.h5 of a run "
         "directory");
  }
  return *value;
}

// Whether every layer has full attention in the base that may have it.
bool is_full_base(const calibration::Results& results) {
  const std::string base = results.provenance.text("base");
  if (base == "full" || base.empty()) return true;
  const int64_t n_layers = model_layers(results);
  Pattern native(stats::at(n_layers), false);
  for (const int64_t layer : native_layers(results, n_layers)) native[stats::at(layer)] = true;
  return base == pattern_name(native);
}

std::vector<double> signal_scores(const SelectInput& input, const SignalSpec& signal) {
  const std::string base = input.results.provenance.text("base");
  if (signal.needs.distributions && !is_full_base(input.results)) {
    fail(ExitCode::kBadData, std::string("method ") + signal.name + ": measured from the base " + base +
                                 ", where KL says how far a layer moves the model, not what a window costs; calibrate "
                                 "with --base full");
  }
  std::vector<double> score = signal_means(input, signal.name, signal);
  if (signal.orientation == SignalOrientation::kSmallKeeps) {
    for (double& value : score) value = 1.0 - value;
  }
  return score;
}

const calibration::Measurement& control_of(const calibration::Results& results, const std::string& name) {
  if (results.controls.empty()) {
    not_measured("ratio", "a control set of short prompts", "calibrate with --control NAME=FILE");
  }
  if (name.empty() && results.controls.size() == 1) return results.controls.begin()->second;
  const auto found = results.controls.find(name);
  if (found != results.controls.end()) return found->second;
  std::string names;
  for (const auto& [known, unused] : results.controls) names += (names.empty() ? "" : ", ") + known;
  fail(ExitCode::kUsage, "method ratio: --control is " + (name.empty() ? "not given" : "\"" + name + "\"") +
                             ", expected one of: " + names);
}

std::vector<double> ratio_scores(const calibration::Results& results, const std::string& control_name) {
  const calibration::Measurement& control = control_of(results, control_name);
  std::vector<double> shorts(stats::at(control.n_layers()), 0.0);
  double scale = 0.0;
  for (int64_t c = 0; c < control.n_layers(); ++c) {
    double sum = 0.0;
    for (int64_t e = 0; e < control.n_examples(); ++e) sum += control.delta_nll(e, c);
    shorts[stats::at(c)] = sum / static_cast<double>(control.n_examples());
    scale += std::abs(shorts[stats::at(c)]) / static_cast<double>(control.n_layers());
  }
  if (scale == 0.0) {
    fail(ExitCode::kBadData,
         "method ratio: the control's mean delta is 0 in every layer, so there is nothing to divide by; use longer "
         "control prompts, or method nll");
  }
  std::vector<double> score = results.statistics.ranking.mean_delta_nll;
  for (std::size_t c = 0; c < score.size(); ++c) score[c] /= std::max(shorts[c], 0.0) + scale;
  return score;
}

std::vector<double> nll_minus_generic_scores(const SelectInput& input) {
  const std::vector<double> generic = signal_means(input, "nll-minus-generic", *find_signal_spec("sensitivity"));
  const auto residual = residuals(input.results.statistics.ranking.mean_delta_nll, generic);
  if (!residual) {
    fail(ExitCode::kBadData,
         "method nll-minus-generic: the regression is not defined for fewer than three layers or where the generic "
         "sensitivity is the same in all layers; use method nll");
  }
  return *residual;
}

void light_transfer(const SelectInput& input, const SelectOptions& options, Choice& choice) {
  const stats::Table<double>& ratio = signal_table(input, "light-transfer", *find_signal_spec("lazy"),
                                                   options.lazy == "compat" ? "lazy_ratio_compat" : "lazy_ratio");
  const LazyVote vote = vote_lazy(ratio, options.lazy_share);
  if (vote.n_examples == 0) {
    fail(ExitCode::kBadData, "method light-transfer: every example is too short for a lazy ratio; use longer prompts");
  }
  choice.score_name = "share of votes as lazy";
  for (auto column = vote.order.rbegin(); column != vote.order.rend(); ++column) {
    choice.order.push_back(
        {input.results.calibration.layer[stats::at(*column)],
         static_cast<double>(vote.votes[stats::at(*column)]) / static_cast<double>(vote.n_examples)});
  }
}

// A file that was changed by hand may hold anything; NaN has no place in an order.
void require_finite(const calibration::Ranking& ranking, const std::vector<double>& score) {
  for (std::size_t c = 0; c < score.size(); ++c) {
    if (std::isfinite(score[c]) && std::isfinite(ranking.mean_delta_nll[c])) continue;
    fail(ExitCode::kBadData, "/ranking of the results: a figure of layer " + std::to_string(ranking.layer[c]) +
                                 " is not finite; compute the statistics anew with winnow stats");
  }
}

// Fills order and score_name; false: the method ranks nothing.
bool rank_layers(const SelectInput& input, const SelectOptions& options, Choice& choice) {
  const calibration::Ranking& ranking = input.results.statistics.ranking;
  const std::string& method = options.method;
  const SignalSpec* signal = find_signal_spec(method);
  std::vector<double> score;
  if (method == "nll") {
    choice.score_name = "mean delta NLL, nats per token";
    score = ranking.mean_delta_nll;
  } else if (method == "exact-match") {
    choice.score_name = "exact-match drop";
    score = ranking.exact_match_drop;
  } else if (method == "token-accuracy") {
    choice.score_name = "token-accuracy drop";
    score = ranking.token_accuracy_drop;
  } else if (signal != nullptr && *signal->score != '\0') {
    choice.score_name = signal->score;
    score = signal_scores(input, *signal);
  } else if (method == "ratio") {
    choice.score_name = "long / short damage";
    score = ratio_scores(input.results, options.control);
  } else if (method == "nll-minus-generic") {
    choice.score_name = "delta NLL beyond generic sensitivity, nats per token";
    score = nll_minus_generic_scores(input);
  } else if (method == "light-transfer") {
    light_transfer(input, options, choice);
    return true;
  } else {
    return false;
  }
  require_finite(ranking, score);
  choice.order = ranked(ranking, score);
  return true;
}

// ---- budgets --------------------------------------------------------------------------------------------------------

// Layers that were not measured stay as the base has them: these have full attention there.
std::vector<int64_t> unmeasured_full_layers(const calibration::Results& results, int64_t n_layers) {
  const std::string base = results.provenance.text("base");
  const std::vector<int64_t>& measured = results.calibration.layer;
  std::vector<int64_t> layers;
  for (const int64_t layer : parse_pattern(base.empty() ? "full" : base, {n_layers, ""}, "base").full_layers) {
    if (std::find(measured.begin(), measured.end(), layer) == measured.end()) layers.push_back(layer);
  }
  return layers;
}

void require_keep(int64_t keep, int64_t n_layers) {
  if (keep >= 0 && keep <= n_layers) return;
  fail(ExitCode::kUsage, "--keep is " + std::to_string(keep) + ", expected 0 to " + std::to_string(n_layers) +
                             ", the layers of the model");
}

// The K of the results; a search's have none: a quarter.
int64_t default_keep(const calibration::Results& results, int64_t n_layers) {
  const int64_t top_k = results.statistics.options.top_k;
  return top_k > 0 ? top_k : calibration::budget_of(n_layers, 4);
}

void take_first(const SelectOptions& options, const calibration::Results& results, int64_t n_layers, Choice& choice) {
  choice.layers = unmeasured_full_layers(results, n_layers);
  const auto fixed = static_cast<int64_t>(choice.layers.size());
  const int64_t keep = options.keep.value_or(fixed + results.statistics.options.top_k);
  const auto n_ranked = static_cast<int64_t>(choice.order.size());
  const auto n_native = static_cast<int64_t>(native_layers(results, n_layers).size());
  if (keep < fixed || keep > fixed + n_ranked) {
    fail(ExitCode::kUsage, "--keep is " + std::to_string(keep) + ", expected " + std::to_string(fixed) + " to " +
                               std::to_string(fixed + n_ranked) + ": only " + std::to_string(n_ranked) + " of " +
                               std::to_string(n_layers) + " layers were measured, the others " +
                               (n_ranked + n_native < n_layers ? "stay as in the base; calibrate without --layers"
                                                               : "have a window of their own"));
  }
  for (int64_t i = 0; i < keep - fixed; ++i) choice.layers.push_back(choice.order[stats::at(i)].layer);
  std::sort(choice.layers.begin(), choice.layers.end());
  if (n_ranked + n_native < n_layers) {
    choice.caveats.push_back("only " + std::to_string(n_ranked) + " of " + std::to_string(n_layers) +
                             " layers were measured; the others stay as in the base");
  }
}

void take_searched(const SelectInput& input, const SelectOptions& options, Choice& choice) {
  if (!input.searched) {
    not_measured(options.method, "a search of that name", "search with --method " + options.method);
  }
  const search::BestPatterns& searched = *input.searched;
  const int64_t keep = options.keep.value_or(default_keep(input.results, model_layers(input.results)));
  const auto found = std::find(searched.keep.begin(), searched.keep.end(), keep);
  if (found == searched.keep.end()) {
    fail(ExitCode::kUsage, "--keep is " + std::to_string(keep) + ", but the search " + options.method + " has K = " +
                               joined(searched.keep) + "; repeat winnow search with --keep " + std::to_string(keep));
  }
  choice.layers = searched.full_layers[stats::at(found - searched.keep.begin())];
  if (searched.is_verified) choice.caveats.emplace_back("searched, then verified with every row under the window");
}

// periodic, first, last, random, list: patterns that look at no figure.
void take_pattern(const SelectOptions& options, const calibration::Results& results, int64_t n_layers, Choice& choice) {
  const std::string& method = options.method;
  const std::string kind = method.substr(0, method.find(':'));
  std::string pattern = method;
  if (kind == "random" && method != kind &&
      parse_number(std::string_view(method).substr(std::min(method.size(), kind.size() + 1))).value_or(-1) < 0) {
    fail(ExitCode::kUsage,
         "--method is \"" + method + "\", expected random:SEED with a whole number of at least 0, or random");
  }
  if (method == "first" || method == "last" || kind == "random") {
    pattern += ":" + std::to_string(options.keep.value_or(default_keep(results, n_layers)));
  } else if (kind != "periodic" && kind != "list") {
    fail(ExitCode::kUsage, "--method is \"" + method + "\", expected one of: " + known_methods());
  }
  if (method == "periodic") fail(ExitCode::kUsage, "--method is \"periodic\", expected periodic:K@O or periodic:K");
  const std::vector<int64_t> native = native_layers(results, n_layers);
  const NamedPattern named =
      parse_pattern(pattern, {.n_layers = n_layers, .checkpoint_sha256 = {}, .native_layers = native}, "--method");
  choice.layers = named.full_layers;
  for (const int64_t layer : native) {
    if (std::erase(choice.layers, layer) == 0) continue;
    const std::string what = "layer " + std::to_string(layer) + " has a window of its own";
    if (kind == "list") fail(ExitCode::kUsage, "--method " + method + ": " + what + ", which stays; leave it out");
    choice.caveats.push_back(what + ", which stays");
  }
  if (kind == "list") choice.method = named.name;
  const auto n_kept = static_cast<int64_t>(choice.layers.size());
  if (options.keep.value_or(n_kept) == n_kept) return;
  fail(ExitCode::kUsage, "--keep " + std::to_string(*options.keep) + " contradicts --method " + method +
                             ", which keeps " + std::to_string(n_kept) + " of " + std::to_string(n_layers) +
                             " layers; leave --keep out");
}

template <typename T>
T provenance_value(const calibration::Results& results, const char* name, const std::string& origin) {
  const storage::ProvenanceEntry* entry = results.provenance.find(name);
  const T* value = entry == nullptr ? nullptr : std::get_if<T>(&entry->value);
  if (value == nullptr) {
    fail(ExitCode::kBadData,
         origin + ": /provenance/" + name + ": not there, or of another type; use the results.h5 of a run directory");
  }
  return *value;
}

// Also where the method does not look at them: a word that means nothing was meant for something.
void check_select_options(const SelectOptions& options) {
  if (options.lazy != "compat" && options.lazy != "clean") {
    fail(ExitCode::kUsage, "--lazy is \"" + options.lazy + "\", expected one of: compat, clean");
  }
  if (!(options.lazy_share > 0.0 && options.lazy_share <= 1.0)) {
    fail(ExitCode::kUsage, "--lazy-share must be above 0 and at most 1");
  }
  if (!options.control.empty() && options.method != "ratio") {
    fail(ExitCode::kUsage, "--control is for method ratio, not " + options.method + "; leave it out");
  }
}

}  // namespace

std::string signal_methods() {
  std::vector<std::string> methods;
  for (const SignalSpec& signal : signal_specs()) {
    if (*signal.score != '\0') methods.emplace_back(signal.name);
  }
  return joined(methods, ", ");
}

std::string known_methods() {
  return "nll, exact-match, token-accuracy, " + signal_methods() +
         ", ratio, nll-minus-generic, light-transfer, periodic:K@O, first, last, random[:SEED], greedy-forward, "
         "greedy-backward, list:1,4,5";
}

bool is_pattern_method(const std::string& method) {
  const std::string kind = method.substr(0, method.find(':'));
  return kind == "periodic" || kind == "first" || kind == "last" || kind == "random" || kind == "list";
}

bool is_search_method(const std::string& method) { return method == "greedy-forward" || method == "greedy-backward"; }

Choice choose_layers(const SelectInput& input, const SelectOptions& options) {
  const calibration::Results& results = input.results;
  check_select_options(options);
  const int64_t n_layers = model_layers(results);
  if (options.keep) require_keep(*options.keep, n_layers);
  Choice choice;
  choice.method = options.method;
  if (is_search_method(options.method)) {
    take_searched(input, options, choice);
  } else if (rank_layers(input, options, choice)) {
    if (!is_full_base(results)) {
      choice.caveats.push_back("figures are changes of the base " + results.provenance.text("base") +
                               ", not of full attention");
    }
    const std::string weak = weak_figure_caveat(results.calibration, options.method);
    if (!weak.empty()) choice.caveats.push_back(weak);
    take_first(options, results, n_layers, choice);
  } else {
    take_pattern(options, results, n_layers, choice);
  }
  return choice;
}

Selection make_selection(const Choice& choice, const SelectInput& input, const std::string& origin) {
  const calibration::Results& results = input.results;
  Selection s;
  s.method = choice.method;
  s.layers = choice.layers;
  s.keep = static_cast<int64_t>(choice.layers.size());
  s.n_layers = provenance_value<int64_t>(results, "model_layers", origin);
  s.target = provenance_value<std::string>(results, "target", origin);
  s.window = std::min(provenance_value<int64_t>(results, "window", origin), kLargestWindow);
  s.window_keys = s.window + (s.target == "swaa-vllm" ? 1 : 0);
  s.sinks = std::min(provenance_value<int64_t>(results, "sinks", origin), kLargestWindow);
  s.decode = provenance_value<std::string>(results, "decode", origin);
  s.tail_rows = provenance_value<int64_t>(results, "tail_rows", origin);
  s.native_layers = native_layers(results, s.n_layers);
  if (!s.native_layers.empty()) s.native_window = provenance_value<int64_t>(results, "native_window", origin);
  s.positions = results.provenance.text("positions");
  s.model = provenance_value<std::string>(results, "model", origin);
  const std::string encoded = results.provenance.text("model_encoded");
  if (!encoded.empty()) s.model = decoded_path(encoded);
  s.model_type = provenance_value<std::string>(results, "model_type", origin);
  s.checkpoint_sha256 = provenance_value<std::string>(results, "checkpoint_sha256", origin);
  s.token_hashes = input.searched ? input.searched->token_hash : results.calibration.token_hash;
  s.provenance.set("results", origin, "");
  s.provenance.set("n_examples", input.searched ? input.searched->n_examples : results.calibration.n_examples(), "");
  for (const char* name : {"data", "data_sha256", "base", "backend", "compute_dtype", "winnow_version", "git_revision",
                           "command", "finished"}) {
    const storage::ProvenanceEntry* entry = results.provenance.find(name);
    if (entry != nullptr) s.provenance.set(name, entry->value, "");
  }
  std::string caveats = results.provenance.text("warnings");
  for (const std::string& caveat : choice.caveats) caveats += (caveats.empty() ? "" : "; ") + caveat;
  if (s.tail_rows >= 0) {
    caveats += (caveats.empty() ? "" : "; ") + std::string("measured with --tail-rows ") + std::to_string(s.tail_rows) +
               ", an estimate where all rows are to be windowed: winnow evaluate says what the pattern is worth";
  }
  s.provenance.set("warnings", caveats, "");
  // A result may be damaged where nothing else looks; its selection would be refused by whoever reads it.
  parse_selection(to_json(s), origin + ": /provenance", "use the results.h5 of a run directory as it was written");
  return s;
}

LazyVote vote_lazy(const stats::Table<double>& ratio, double share) {
  const int64_t n_columns = ratio.cols;
  const auto n_lazy = static_cast<int64_t>(static_cast<double>(n_columns) * share);
  LazyVote vote;
  vote.votes.assign(stats::at(n_columns), 0);
  std::vector<double> sum(stats::at(n_columns), 0.0);
  std::vector<int64_t> by_ratio(stats::at(n_columns));
  for (int64_t e = 0; e < ratio.rows; ++e) {
    const double* row = &ratio.values[stats::at(e * n_columns)];
    if (std::any_of(row, row + n_columns, [](double value) { return std::isnan(value); })) continue;
    ++vote.n_examples;
    for (int64_t c = 0; c < n_columns; ++c) sum[stats::at(c)] += row[c];
    std::iota(by_ratio.begin(), by_ratio.end(), int64_t{0});
    std::stable_sort(by_ratio.begin(), by_ratio.end(), [&](int64_t a, int64_t b) { return row[a] > row[b]; });
    for (int64_t i = 0; i < n_lazy; ++i) {
      const int64_t column = by_ratio[stats::at(i)];
      if (vote.votes[stats::at(column)]++ == 0) vote.order.push_back(column);
    }
  }
  std::stable_sort(vote.order.begin(), vote.order.end(),
                   [&](int64_t a, int64_t b) { return vote.votes[stats::at(a)] > vote.votes[stats::at(b)]; });
  std::vector<int64_t> rest;
  for (int64_t c = 0; c < n_columns; ++c) {
    if (vote.votes[stats::at(c)] == 0) rest.push_back(c);
  }
  std::stable_sort(rest.begin(), rest.end(),
                   [&](int64_t a, int64_t b) { return sum[stats::at(a)] > sum[stats::at(b)]; });
  vote.order.insert(vote.order.end(), rest.begin(), rest.end());
  return vote;
}

std::optional<std::vector<double>> residuals(const std::vector<double>& y, const std::vector<double>& x) {
  const auto n = static_cast<double>(y.size());
  if (y.size() < 3) return std::nullopt;
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0.0;
  double xy = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  if (xx == 0.0) return std::nullopt;
  std::vector<double> residual(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) residual[i] = y[i] - mean_y - xy / xx * (x[i] - mean_x);
  return residual;
}

int64_t hybrid_padding_layers(int64_t n_full, int64_t n_windowed) {
  if (n_full == 0 || n_windowed == 0) return 0;  // one kind of layer: one group
  const int64_t few = std::min(n_full, n_windowed);
  const int64_t many = std::max(n_full, n_windowed);
  const int64_t group = 2 * many < 3 * few ? many : few;  // many < 1.5 few
  const auto padding = [&](int64_t layers) { return (group - layers % group) % group; };
  return padding(n_full) + padding(n_windowed);
}

std::string hybrid_padding_note(int64_t keep, int64_t n_layers) {
  const int64_t n_padding = hybrid_padding_layers(keep, n_layers - keep);
  if (n_padding == 0) return "";
  int64_t above = keep + 1;
  int64_t below = keep - 1;
  while (hybrid_padding_layers(above, n_layers - above) != 0) ++above;  // ends at n_layers at the latest
  while (hybrid_padding_layers(below, n_layers - below) != 0) --below;
  return "vLLM's hybrid KV cache manager adds " + std::to_string(n_padding) + " padding layer" +
         (n_padding == 1 ? "" : "s") + " to " + std::to_string(keep) + " full of " + std::to_string(n_layers) +
         " layers, memory that holds nothing; K = " + std::to_string(above) + " wastes none" +
         (below > 0 ? ", nor does K = " + std::to_string(below) : "");
}

}  // namespace winnow::selection
