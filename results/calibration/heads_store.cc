#include "results/calibration/heads_store.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::calibration {
namespace {

constexpr const char* kGroup = "heads";

void write_measured(storage::Group& group, const Measurement& m) {
  const FiguresByHead& figures = m.by_head;
  const auto variable = [&](const char* name) {
    return storage::Variable{name, {"example", "layer", "kv_head"}, {m.n_examples(), m.n_layers(), figures.n_heads}};
  };
  std::vector<double> delta;
  for (int64_t e = 0; e < m.n_examples(); ++e) {
    for (int64_t l = 0; l < m.n_layers(); ++l) {
      for (int64_t h = 0; h < figures.n_heads; ++h) delta.push_back(m.delta_nll_by_head(e, l, h));
    }
  }
  storage::write_variable(group, variable("nll"), figures.nll.values,
                          {storage::kNats, "mean NLL of the answer with that one key head windowed"});
  storage::write_variable(group, variable("delta_nll"), delta,
                          {storage::kNats, "NLL with the key head windowed less NLL under the base"});
  storage::write_variable(group, variable("exact_match"), figures.exact_match.values,
                          {storage::kOne, "1 where greedy decoding with that one key head windowed gives the answer"});
  storage::write_variable(
      group, variable("token_accuracy"), figures.token_accuracy.values,
      {storage::kOne, "share of answer tokens that are the argmax with that one key head windowed"});
}

void write_ranking(storage::Group& group, const Measurement& m, const HeadStatistics& heads) {
  const Ranking& r = heads.ranking;
  const auto by_head = [&](const char* name) {
    return storage::Variable{name, {"layer", "kv_head"}, {m.n_layers(), heads.n_heads}};
  };
  const auto write = [&](const char* name, const auto& values, const char* units, const char* long_name) {
    storage::write_variable(group, by_head(name), values, {units, long_name});
  };
  write("mean_delta_nll", r.mean_delta_nll, storage::kNats, "mean over examples of delta_nll");
  write("median_delta_nll", r.median_delta_nll, storage::kNats, "median over examples of delta_nll");
  write("standard_error", r.standard_error, storage::kNats, "standard error of mean_delta_nll");
  write("ci_low", r.ci_low, storage::kNats, "lower end of the 95 % interval of mean_delta_nll");
  write("ci_high", r.ci_high, storage::kNats, "upper end of the 95 % interval of mean_delta_nll");
  write("rank", r.rank, storage::kOne, "rank among the heads of all layers: 1 keeps full attention first");
  write("rank_low", r.rank_low, storage::kOne, "lower end of the 95 % interval of rank");
  write("rank_high", r.rank_high, storage::kOne, "upper end of the 95 % interval of rank");
  write("exact_match_drop", r.exact_match_drop, storage::kOne,
        "mean over examples of exact match under the base less with the key head windowed");
  write("token_accuracy_drop", r.token_accuracy_drop, storage::kOne,
        "mean over examples of token accuracy under the base less with the key head windowed");
  storage::write_coordinate(group, "budget", r.budget, {storage::kOne, "number of heads that keep full attention"});
  storage::write_variable(
      group,
      {"p_top_k", {"budget", "layer", "kv_head"}, {static_cast<int64_t>(r.budget.size()), m.n_layers(), heads.n_heads}},
      r.p_top_k.values, {storage::kOne, "share of bootstrap resamples in which the head is among the top budget"});
  if (r.spread_status.empty()) return;
  for (const char* name : {"standard_error", "ci_low", "ci_high", "rank_low", "rank_high", "p_top_k"}) {
    group.set_attribute<std::string>(name, "status", r.spread_status);
  }
}

void read_measured(const storage::Group& group, Measurement& m) {
  FiguresByHead& figures = m.by_head;
  figures.n_heads = static_cast<int64_t>(group.read<int64_t>("kv_head", 1).values.size());
  if (group.read<int64_t>("layer", 1).values != m.layer) {
    fail(ExitCode::kBadData, group.where("layer") + ": differs from the layers of /calibration");
  }
  const auto read = [&](const char* name, auto& table) {
    table.rows = m.n_examples() * m.n_layers();
    table.cols = figures.n_heads;
    using Value = typename std::remove_reference_t<decltype(table.values)>::value_type;
    table.values = storage::read_variable<Value>(group, name, {m.n_examples(), m.n_layers(), table.cols});
  };
  read("nll", figures.nll);
  read("exact_match", figures.exact_match);
  read("token_accuracy", figures.token_accuracy);
  check_measurement(m, group.where("."));
}

Ranking read_ranking(const storage::Group& group, const Measurement& m) {
  const int64_t n_heads = m.by_head.n_heads;
  const auto n_all = m.n_layers() * n_heads;
  const auto by_head = [&](const char* name) {
    return storage::read_variable<double>(group, name, {m.n_layers(), n_heads});
  };
  Ranking r;
  for (const int64_t layer : m.layer) {
    for (int64_t head = 0; head < n_heads; ++head) r.layer.push_back(layer * n_heads + head);
  }
  r.mean_delta_nll = by_head("mean_delta_nll");
  r.median_delta_nll = by_head("median_delta_nll");
  r.standard_error = by_head("standard_error");
  r.ci_low = by_head("ci_low");
  r.ci_high = by_head("ci_high");
  r.rank = storage::read_variable<int64_t>(group, "rank", {m.n_layers(), n_heads});
  r.rank_low = by_head("rank_low");
  r.rank_high = by_head("rank_high");
  r.exact_match_drop = by_head("exact_match_drop");
  r.token_accuracy_drop = by_head("token_accuracy_drop");
  r.budget = group.read<int64_t>("budget", 1).values;
  r.p_top_k.rows = static_cast<int64_t>(r.budget.size());
  r.p_top_k.cols = n_all;
  r.p_top_k.values = storage::read_variable<double>(group, "p_top_k", {r.p_top_k.rows, m.n_layers(), n_heads});
  r.spread_status = group.string_attribute("standard_error", "status").value_or("");
  std::vector<int64_t> ranks = r.rank;
  std::ranges::sort(ranks);
  for (int64_t i = 0; i < n_all; ++i) {
    if (ranks[static_cast<std::size_t>(i)] == i + 1) continue;
    fail(ExitCode::kBadData, group.where("rank") + ": expected each of 1 to " + std::to_string(n_all) + " once");
  }
  return r;
}

}  // namespace

void write_heads(storage::Group& root, const Results& results) {
  if (!results.statistics.heads) return;
  const Measurement& m = results.calibration;
  const HeadStatistics& heads = *results.statistics.heads;
  storage::Group group = root.create_group(kGroup);
  std::vector<int64_t> numbers;
  for (int64_t head = 0; head < heads.n_heads; ++head) numbers.push_back(head);
  group.make_dimension("example", m.n_examples());
  storage::write_coordinate(group, "layer", m.layer, {storage::kOne, "index of the decoder layer"});
  storage::write_coordinate(group, "kv_head", numbers, {storage::kOne, "index of the key head in its layer"});
  write_measured(group, m);
  write_ranking(group, m, heads);
  const auto by_layer = [&](const char* name) { return storage::Variable{name, {"layer"}, {m.n_layers()}}; };
  storage::write_variable(group, by_layer("layer_sum"), heads.layer_sum,
                          {storage::kNats, "sum over the layer's key heads of mean_delta_nll"});
  storage::write_variable(group, by_layer("layer_largest"), heads.layer_largest,
                          {storage::kNats, "largest mean_delta_nll of the layer's key heads"});
  storage::write_estimate(group, "rho_sum", "rho_sum", heads.rho_sum,
                          "Spearman's rho over layers of the layer's own mean_delta_nll with layer_sum");
  storage::write_estimate(group, "rho_largest", "rho_largest", heads.rho_largest,
                          "Spearman's rho over layers of the layer's own mean_delta_nll with layer_largest");
}

void read_heads(const storage::Group& root, Results& results) {
  if (!root.contains_group(kGroup)) return;
  const storage::Group group = root.group(kGroup);
  Measurement& m = results.calibration;
  read_measured(group, m);
  HeadStatistics heads;
  heads.n_heads = m.by_head.n_heads;
  heads.ranking = read_ranking(group, m);
  heads.layer_sum = storage::read_variable<double>(group, "layer_sum", {m.n_layers()});
  heads.layer_largest = storage::read_variable<double>(group, "layer_largest", {m.n_layers()});
  heads.rho_sum = storage::read_estimate(group, "rho_sum", "rho_sum");
  heads.rho_largest = storage::read_estimate(group, "rho_largest", "rho_largest");
  results.statistics.heads = std::move(heads);
}

}  // namespace winnow::calibration
