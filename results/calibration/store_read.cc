#include "base/checksum.h"
#include "base/error.h"
#include "results/calibration/signals_store.h"
#include "results/calibration/store.h"
#include "results/storage/hdf5.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::calibration {
namespace {

void read_token_nll(const storage::Group& group, Measurement& m) {
  if (!group.contains("token_nll_base")) return;
  const std::vector<int64_t> shape = group.shape("token_nll_base");
  const int64_t n_tokens = shape.size() == 2 ? shape[1] : 0;
  m.token_nll_base = storage::read_table<float>(group, "token_nll_base", m.n_examples(), n_tokens);
  m.token_nll.rows = m.n_examples() * m.n_layers();
  m.token_nll.cols = n_tokens;
  m.token_nll.values = storage::read_variable<float>(group, "token_nll", {m.n_examples(), m.n_layers(), n_tokens});
}

Measurement read_measurement(const storage::Group& group) {
  Measurement m;
  m.example_id = group.read<std::string>("example_id", 1).values;
  m.layer = group.read<int64_t>("layer", 1).values;
  const int64_t n = m.n_examples();
  const int64_t n_layers = m.n_layers();
  if (group.contains("source")) m.source = storage::read_variable<std::string>(group, "source", {n});
  m.answer_tokens = storage::read_variable<int64_t>(group, "answer_tokens", {n});
  m.prompt_tokens = storage::read_variable<int64_t>(group, "prompt_tokens", {n});
  for (const uint8_t flag : storage::read_variable<uint8_t>(group, "layer_windowed_in_base", {n_layers})) {
    m.layer_windowed_in_base.push_back(flag != 0);
  }
  m.nll_base = storage::read_variable<double>(group, "nll_base", {n});
  m.exact_match_base = storage::read_variable<uint8_t>(group, "exact_match_base", {n});
  m.token_accuracy_base = storage::read_variable<double>(group, "token_accuracy_base", {n});
  m.nll = storage::read_table<double>(group, "nll", n, n_layers);
  m.exact_match = storage::read_table<uint8_t>(group, "exact_match", n, n_layers);
  m.token_accuracy = storage::read_table<double>(group, "token_accuracy", n, n_layers);
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
  results.provenance = storage::read_provenance(root.group("provenance"));
  if (!file.has_checksum()) note_no_checksum(path);
  return results;
}

}  // namespace winnow::calibration
