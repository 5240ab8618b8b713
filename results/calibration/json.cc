#include "results/calibration/json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/json_values.h"
#include "base/signal_specs.h"
#include "results/calibration/heads.h"
#include "results/race/text.h"
#include "results/storage/variables.h"

namespace winnow::calibration {
namespace {

void put(Json& object, const std::string& name, const stats::Figure& figure) {
  object[name] = figure.defined() ? Json(figure.value) : Json(nullptr);
  if (!figure.defined()) object[name + "_status"] = figure.status;
}

void put(Json& object, const std::string& name, const std::string& interval_prefix, const stats::Estimate& estimate) {
  put(object, name, estimate.value);
  put(object, interval_prefix + "_ci_low", estimate.ci_low);
  put(object, interval_prefix + "_ci_high", estimate.ci_high);
}

Json layer_object(const Ranking& r, int64_t column) {
  const auto c = static_cast<std::size_t>(column);
  Json p_top_k = Json::object();
  for (std::size_t b = 0; b < r.budget.size(); ++b) {
    p_top_k[std::to_string(r.budget[b])] = number_or_null(r.p_top_k(static_cast<int64_t>(b), column));
  }
  Json object = {{"rank", r.rank[c]},
                 {"layer", r.layer[c]},
                 {"mean_delta_nll", r.mean_delta_nll[c]},
                 {"median_delta_nll", r.median_delta_nll[c]}};
  put_spread_and_drops(r, c, object);
  object["p_top_k"] = std::move(p_top_k);
  for (const SignalSpec& spec : signal_specs()) {
    const auto found = r.signal_means.find(spec.ranked);
    if (found == r.signal_means.end()) continue;
    object[std::string("mean_") + spec.ranked] = number_or_null(found->second[c]);
  }
  return object;
}

// rho and transfer by name of the signal.
Json signals_object(const SignalComparison& c) {
  Json object = {{"top_k", c.top_k}, {"spearman", Json::object()}, {"transfer", Json::object()}};
  for (std::size_t a = 0; a < c.signal.size(); ++a) {
    const auto row = static_cast<int64_t>(a);
    for (std::size_t b = 0; b < c.signal.size(); ++b) {
      const auto col = static_cast<int64_t>(b);
      object["spearman"][c.signal[a]][c.signal[b]] = {{"rho", number_or_null(c.rho(row, col))},
                                                      {"ci_low", number_or_null(c.rho_ci_low(row, col))},
                                                      {"ci_high", number_or_null(c.rho_ci_high(row, col))}};
    }
    object["transfer"][c.signal[a]] = {{"share", number_or_null(c.transfer[a])},
                                       {"low", number_or_null(c.transfer_low[a])},
                                       {"high", number_or_null(c.transfer_high[a])},
                                       {"overlap", number_or_null(c.transfer_overlap[a])}};
  }
  if (!c.rho_status.empty()) object["spearman_status"] = c.rho_status;
  if (!c.transfer_status.empty()) object["transfer_status"] = c.transfer_status;
  put(object, "partial_rho_exact_match", "partial_rho_exact_match", c.partial_rho_exact_match);
  put(object, "partial_rho_accuracy", "partial_rho_accuracy", c.partial_rho_accuracy);
  return object;
}

Json deconfounding_object(const Deconfounding& d) {
  Json object;
  put(object, "spearman_rho", "spearman", d.spearman_rho);
  put(object, "spearman_p", d.spearman_p);
  object["n_paired"] = d.n_paired;
  object["top_k"] = d.top_k;
  put(object, "overlap", d.overlap);
  put(object, "jaccard", d.jaccard);
  put(object, "magnitude_ratio", d.magnitude_ratio);
  return object;
}

Json reliability_object(const Reliability& r) {
  Json object;
  put(object, "split_half", "split_half", r.split_half);
  put(object, "rho_exact_match", "rho_exact_match", r.rho_exact_match);
  put(object, "rho_token_accuracy", "rho_token_accuracy", r.rho_token_accuracy);
  return object;
}

Json base_object(const Measurement& m) {
  const auto mean = [](const auto& values) {
    double sum = 0.0;
    for (const auto value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  return {{"n_examples", m.n_examples()},
          {"nll", mean(m.nll_base)},
          {"exact_match", mean(m.exact_match_base)},
          {"token_accuracy", mean(m.token_accuracy_base)}};
}

}  // namespace

void put_spread_and_drops(const Ranking& ranking, std::size_t column, Json& object) {
  object["standard_error"] = number_or_null(ranking.standard_error[column]);
  object["ci_low"] = number_or_null(ranking.ci_low[column]);
  object["ci_high"] = number_or_null(ranking.ci_high[column]);
  object["rank_low"] = number_or_null(ranking.rank_low[column]);
  object["rank_high"] = number_or_null(ranking.rank_high[column]);
  object["exact_match_drop"] = ranking.exact_match_drop[column];
  object["token_accuracy_drop"] = ranking.token_accuracy_drop[column];
}

std::string to_json(const Results& results) {
  const Statistics& s = results.statistics;
  Json object = {{"format", storage::kResultsFormat}, {"format_version", storage::kResultsVersion}};
  object["top_k"] = s.options.top_k;
  object["keep_full_attention"] = layers_to_keep(s);
  object["base"] = base_object(results.calibration);
  object["layers"] = Json::array();
  for (const int64_t column : s.ranking.order()) object["layers"].push_back(layer_object(s.ranking, column));
  if (const Measurement& m = results.calibration; m.by_window.n_windows() > 0) {
    Json layers = Json::array();
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      layers.push_back(
          {{"layer", m.layer[static_cast<std::size_t>(l)]}, {"mean_delta_nll", mean_delta_nll_by_window(m, l)}});
    }
    object["by_window"] = {{"window", m.by_window.window}, {"layers", std::move(layers)}};
  }
  if (const Measurement& m = results.calibration; m.by_setting.n_settings() > 0) {
    Json layers = Json::array();
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      layers.push_back(
          {{"layer", m.layer[static_cast<std::size_t>(l)]}, {"mean_delta_nll", mean_delta_nll_by_setting(m, l)}});
    }
    object["by_setting"] = {
        {"window", m.by_setting.window}, {"kv", names_of(m.by_setting.kv)}, {"layers", std::move(layers)}};
  }
  if (!s.ranking.spread_status.empty()) object["spread_status"] = s.ranking.spread_status;
  object["deconfounding"] = Json::object();
  for (const auto& [name, figures] : s.deconfounding) object["deconfounding"][name] = deconfounding_object(figures);
  object["reliability"] = reliability_object(s.reliability);
  if (results.race) object["race"] = race::to_object(*results.race);
  if (s.signals) object["signals"] = signals_object(*s.signals);
  if (s.heads) object["heads"] = heads_object(results);
  object["statistics"] = {{"seed", s.options.seed},
                          {"n_resamples", s.options.n_resamples},
                          {"n_permutations", s.options.n_permutations},
                          {"n_splits", s.options.n_splits}};
  object["provenance"] = Json::object();
  for (const storage::ProvenanceEntry& entry : results.provenance.entries()) {
    std::visit([&](const auto& value) { object["provenance"][entry.name] = value; }, entry.value);
  }
  return json_text(object, 2) + "\n";
}

}  // namespace winnow::calibration
