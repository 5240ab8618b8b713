#include "results/calibration/signals_store.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "results/calibration/signals.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::calibration {
namespace {

// Tables (example, layer) of a measurement that are stored as they are.
struct SignalVariable {
  const char* name;
  stats::Table<double> Measurement::*table;
  storage::Description description;
};
const std::array<SignalVariable, 5>& variables() {
  static const std::array<SignalVariable, 5> kVariables = {{
      {"kl",
       &Measurement::kl,
       {storage::kNats, "KL of the base's distributions to those with that one layer switched"}},
      {"nll_removed",
       &Measurement::nll_removed,
       {storage::kNats, "mean NLL of the answer without the layer's attention output"}},
      {"attention_mass_outside",
       &Measurement::attention_mass_outside,
       {storage::kOne, "share of the answer rows' attention beyond window and sinks"}},
      {"lazy_ratio",
       &Measurement::lazy_ratio,
       {storage::kOne, "share of the last queries' attention on sinks and recent keys"}},
      {"lazy_ratio_compat",
       &Measurement::lazy_ratio_compat,
       {storage::kOne, "the same as SWAA's script forms it: the recent keys are the sequence's last for all queries"}},
  }};
  return kVariables;
}

struct MeanVariable {
  const char* name;
  std::vector<double> Ranking::*values;
  storage::Description description;
};
const std::array<MeanVariable, 4>& means() {
  static const std::array<MeanVariable, 4> kMeans = {{
      {"mean_kl", &Ranking::mean_kl, {storage::kNats, "mean over examples of kl"}},
      {"mean_delta_nll_removed",
       &Ranking::mean_delta_nll_removed,
       {storage::kNats, "mean over examples of delta_nll_removed"}},
      {"mean_attention_mass_outside",
       &Ranking::mean_attention_mass_outside,
       {storage::kOne, "mean over examples of attention_mass_outside"}},
      {"mean_lazy_ratio", &Ranking::mean_lazy_ratio, {storage::kOne, "mean over examples that have one of lazy_ratio"}},
  }};
  return kMeans;
}

// Tables of /signals: along signal, or signal and another axis.
struct ComparisonVariable {
  const char* name;
  stats::Table<double> SignalComparison::*table;
  const char* other;  // dimension
  storage::Description description;
};
const std::array<ComparisonVariable, 4>& tables() {
  static const std::array<ComparisonVariable, 4> kTables = {{
      {"value",
       &SignalComparison::value,
       "layer",
       {storage::kOne, "mean over examples, large means keep full attention"}},
      {"spearman_rho",
       &SignalComparison::rho,
       "signal_other",
       {storage::kOne, "Spearman's rho over layers of two signals"}},
      {"spearman_ci_low",
       &SignalComparison::rho_ci_low,
       "signal_other",
       {storage::kOne, "lower end of the 95 % interval of spearman_rho"}},
      {"spearman_ci_high",
       &SignalComparison::rho_ci_high,
       "signal_other",
       {storage::kOne, "upper end of the 95 % interval of spearman_rho"}},
  }};
  return kTables;
}

struct TransferVariable {
  const char* name;
  std::vector<double> SignalComparison::*values;
  const char* long_name;
};
const std::array<TransferVariable, 4>& transfers() {
  static const std::array<TransferVariable, 4> kTransfers = {{
      {"transfer", &SignalComparison::transfer,
       "delta NLL on held-out halves of the top K by the signal, over that of the halves' own top K"},
      {"transfer_low", &SignalComparison::transfer_low, "lower end of the middle 95 % of the splits of transfer"},
      {"transfer_high", &SignalComparison::transfer_high, "upper end of the middle 95 % of the splits of transfer"},
      {"transfer_overlap", &SignalComparison::transfer_overlap,
       "share of the top K by the signal that both halves have, mean over splits"},
  }};
  return kTransfers;
}

}  // namespace

void write_signals(storage::Group& group, const Measurement& m) {
  const std::vector<int64_t> per_cell = {m.n_examples(), m.n_layers()};
  for (const SignalVariable& variable : variables()) {
    const std::vector<double>& values = (m.*variable.table).values;
    if (values.empty()) continue;
    storage::write_variable(group, {variable.name, {"example", "layer"}, per_cell}, values, variable.description);
    if (!has_nan(values)) continue;
    group.set_attribute<std::string>(variable.name, "status",
                                     "an example of fewer tokens than sinks, recent keys and 10 has none");
  }
  if (m.nll_removed.rows > 0) {
    storage::write_variable(group, {"delta_nll_removed", {"example", "layer"}, per_cell}, removal_deltas(m).values,
                            {storage::kNats, "NLL without the layer's attention output less NLL under the base"});
  }
  const stats::Table<double>& by_head = m.attention_mass_outside_kv_head;
  if (by_head.values.empty()) return;
  group.make_dimension("kv_head", by_head.cols);
  storage::write_variable(
      group,
      {"attention_mass_outside_kv_head", {"example", "layer", "kv_head"}, {m.n_examples(), m.n_layers(), by_head.cols}},
      by_head.values, {storage::kOne, "attention_mass_outside of the query heads that share a key head"});
}

void read_signals(const storage::Group& group, Measurement& m) {
  for (const SignalVariable& variable : variables()) {
    if (!group.contains(variable.name)) continue;
    m.*variable.table = storage::read_table<double>(group, variable.name, m.n_examples(), m.n_layers());
  }
  const char* by_head = "attention_mass_outside_kv_head";
  if (!group.contains(by_head)) return;
  const std::vector<int64_t> shape = group.shape(by_head);
  const int64_t n_heads = shape.size() == 3 ? shape[2] : 0;
  stats::Table<double>& table = m.attention_mass_outside_kv_head;
  table.values = storage::read_variable<double>(group, by_head, {m.n_examples(), m.n_layers(), n_heads});
  table.rows = m.n_examples() * m.n_layers();
  table.cols = n_heads;
}

void write_signal_means(storage::Group& group, const Ranking& r) {
  for (const MeanVariable& variable : means()) {
    const std::vector<double>& values = r.*variable.values;
    if (values.empty()) continue;
    storage::write_variable(group, {variable.name, {"layer"}, {static_cast<int64_t>(values.size())}}, values,
                            variable.description);
    if (has_nan(values)) group.set_attribute<std::string>(variable.name, "status", "every example is too short");
  }
}

void read_signal_means(const storage::Group& group, Ranking& r) {
  for (const MeanVariable& variable : means()) {
    if (!group.contains(variable.name)) continue;
    r.*variable.values = storage::read_variable<double>(group, variable.name, {static_cast<int64_t>(r.layer.size())});
  }
}

void write_comparison(storage::Group group, const SignalComparison& c) {
  storage::write_coordinate(group, "signal", c.signal, {storage::kText, "signal"});
  storage::write_coordinate(group, "signal_other", c.signal, {storage::kText, "the signal that it is compared with"});
  storage::write_coordinate(group, "layer", c.layer, {storage::kOne, "index of the decoder layer"});
  for (const ComparisonVariable& variable : tables()) {
    const stats::Table<double>& table = c.*variable.table;
    storage::write_variable(group, {variable.name, {"signal", variable.other}, {table.rows, table.cols}}, table.values,
                            variable.description);
    if (has_nan(table.values)) {
      group.set_attribute<std::string>(variable.name, "status",
                                       c.rho_status.empty() ? "every example is too short" : c.rho_status);
    }
  }
  for (const TransferVariable& variable : transfers()) {
    const std::vector<double>& values = c.*variable.values;
    storage::write_variable(group, {variable.name, {"signal"}, {static_cast<int64_t>(values.size())}}, values,
                            {storage::kOne, variable.long_name});
    if (has_nan(values)) group.set_attribute<std::string>(variable.name, "status", c.transfer_status);
  }
  group.write_scalar<int64_t>("top_k", c.top_k);
  storage::describe(group, "top_k", {storage::kOne, "K of transfer"});
  storage::write_estimate(group, "partial_rho_exact_match", "partial_rho_exact_match", c.partial_rho_exact_match,
                          "Spearman's partial rho of mean_delta_nll with exact_match_drop, given generic sensitivity");
  storage::write_estimate(
      group, "partial_rho_accuracy", "partial_rho_accuracy", c.partial_rho_accuracy,
      "Spearman's partial rho of mean_delta_nll with token_accuracy_drop, given generic sensitivity");
}

SignalComparison read_comparison(const storage::Group& group) {
  SignalComparison c;
  c.signal = group.read<std::string>("signal", 1).values;
  c.layer = group.read<int64_t>("layer", 1).values;
  const auto n_signals = static_cast<int64_t>(c.signal.size());
  for (const ComparisonVariable& variable : tables()) {
    const int64_t n_other = std::string(variable.other) == "layer" ? static_cast<int64_t>(c.layer.size()) : n_signals;
    c.*variable.table = storage::read_table<double>(group, variable.name, n_signals, n_other);
    const auto status = group.string_attribute(variable.name, "status");
    if (status && std::string(variable.other) != "layer") c.rho_status = *status;
  }
  for (const TransferVariable& variable : transfers()) {
    c.*variable.values = storage::read_variable<double>(group, variable.name, {n_signals});
    if (const auto status = group.string_attribute(variable.name, "status")) c.transfer_status = *status;
  }
  c.top_k = group.read_scalar<int64_t>("top_k");
  c.partial_rho_exact_match = storage::read_estimate(group, "partial_rho_exact_match", "partial_rho_exact_match");
  c.partial_rho_accuracy = storage::read_estimate(group, "partial_rho_accuracy", "partial_rho_accuracy");
  return c;
}

}  // namespace winnow::calibration
