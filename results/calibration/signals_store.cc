#include "results/calibration/signals_store.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "results/calibration/signals.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow {
namespace {

// Tables (example, layer) of a measurement that are stored as they are.
struct SignalVariable {
  const char* name;
  Table<double> Measurement::*table;
  Description description;
};
const std::array<SignalVariable, 5>& variables() {
  static const std::array<SignalVariable, 5> kVariables = {{
      {"kl", &Measurement::kl, {kNats, "KL of the base's distributions to those with that one layer switched"}},
      {"nll_removed",
       &Measurement::nll_removed,
       {kNats, "mean NLL of the answer without the layer's attention output"}},
      {"attention_mass_outside",
       &Measurement::attention_mass_outside,
       {kOne, "share of the answer rows' attention beyond window and sinks"}},
      {"lazy_ratio", &Measurement::lazy_ratio, {kOne, "share of the last queries' attention on sinks and recent keys"}},
      {"lazy_ratio_compat",
       &Measurement::lazy_ratio_compat,
       {kOne, "the same as SWAA's script forms it: the recent keys are the sequence's last for all queries"}},
  }};
  return kVariables;
}

struct MeanVariable {
  const char* name;
  std::vector<double> Ranking::*values;
  Description description;
};
const std::array<MeanVariable, 4>& means() {
  static const std::array<MeanVariable, 4> kMeans = {{
      {"mean_kl", &Ranking::mean_kl, {kNats, "mean over examples of kl"}},
      {"mean_delta_nll_removed", &Ranking::mean_delta_nll_removed, {kNats, "mean over examples of delta_nll_removed"}},
      {"mean_attention_mass_outside",
       &Ranking::mean_attention_mass_outside,
       {kOne, "mean over examples of attention_mass_outside"}},
      {"mean_lazy_ratio", &Ranking::mean_lazy_ratio, {kOne, "mean over examples that have one of lazy_ratio"}},
  }};
  return kMeans;
}

// Tables of /signals: along signal, or signal and another axis.
struct ComparisonVariable {
  const char* name;
  Table<double> SignalComparison::*table;
  const char* other;  // dimension
  Description description;
};
const std::array<ComparisonVariable, 4>& tables() {
  static const std::array<ComparisonVariable, 4> kTables = {{
      {"value", &SignalComparison::value, "layer", {kOne, "mean over examples, large means keep full attention"}},
      {"spearman_rho", &SignalComparison::rho, "signal_other", {kOne, "Spearman's rho over layers of two signals"}},
      {"spearman_ci_low",
       &SignalComparison::rho_ci_low,
       "signal_other",
       {kOne, "lower end of the 95 % interval of spearman_rho"}},
      {"spearman_ci_high",
       &SignalComparison::rho_ci_high,
       "signal_other",
       {kOne, "upper end of the 95 % interval of spearman_rho"}},
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

void write_signals(hdf5::Group& group, const Measurement& m) {
  const std::vector<int64_t> per_cell = {m.n_examples(), m.n_layers()};
  for (const SignalVariable& variable : variables()) {
    const std::vector<double>& values = (m.*variable.table).values;
    if (values.empty()) continue;
    write_variable(group, {variable.name, {"example", "layer"}, per_cell}, values, variable.description);
    if (!has_nan(values)) continue;
    group.set_attribute<std::string>(variable.name, "status",
                                     "an example of fewer tokens than sinks, recent keys and 10 has none");
  }
  if (m.nll_removed.rows > 0) {
    write_variable(group, {"delta_nll_removed", {"example", "layer"}, per_cell}, removal_deltas(m).values,
                   {kNats, "NLL without the layer's attention output less NLL under the base"});
  }
  const Table<double>& by_head = m.attention_mass_outside_kv_head;
  if (by_head.values.empty()) return;
  group.make_dimension("kv_head", by_head.cols);
  write_variable(
      group,
      {"attention_mass_outside_kv_head", {"example", "layer", "kv_head"}, {m.n_examples(), m.n_layers(), by_head.cols}},
      by_head.values, {kOne, "attention_mass_outside of the query heads that share a key head"});
}

void read_signals(const hdf5::Group& group, Measurement& m) {
  for (const SignalVariable& variable : variables()) {
    if (!group.contains(variable.name)) continue;
    m.*variable.table = read_table<double>(group, variable.name, m.n_examples(), m.n_layers());
  }
  const char* by_head = "attention_mass_outside_kv_head";
  if (!group.contains(by_head)) return;
  const std::vector<int64_t> shape = group.shape(by_head);
  const int64_t n_heads = shape.size() == 3 ? shape[2] : 0;
  Table<double>& table = m.attention_mass_outside_kv_head;
  table.values = read_variable<double>(group, by_head, {m.n_examples(), m.n_layers(), n_heads});
  table.rows = m.n_examples() * m.n_layers();
  table.cols = n_heads;
}

void write_signal_means(hdf5::Group& group, const Ranking& r) {
  for (const MeanVariable& variable : means()) {
    const std::vector<double>& values = r.*variable.values;
    if (values.empty()) continue;
    write_variable(group, {variable.name, {"layer"}, {static_cast<int64_t>(values.size())}}, values,
                   variable.description);
    if (has_nan(values)) group.set_attribute<std::string>(variable.name, "status", "every example is too short");
  }
}

void read_signal_means(const hdf5::Group& group, Ranking& r) {
  for (const MeanVariable& variable : means()) {
    if (!group.contains(variable.name)) continue;
    r.*variable.values = read_variable<double>(group, variable.name, {static_cast<int64_t>(r.layer.size())});
  }
}

void write_comparison(hdf5::Group group, const SignalComparison& c) {
  write_coordinate(group, "signal", c.signal, {kText, "signal"});
  write_coordinate(group, "signal_other", c.signal, {kText, "the signal that it is compared with"});
  write_coordinate(group, "layer", c.layer, {kOne, "index of the decoder layer"});
  for (const ComparisonVariable& variable : tables()) {
    const Table<double>& table = c.*variable.table;
    write_variable(group, {variable.name, {"signal", variable.other}, {table.rows, table.cols}}, table.values,
                   variable.description);
    if (has_nan(table.values)) {
      group.set_attribute<std::string>(variable.name, "status",
                                       c.rho_status.empty() ? "every example is too short" : c.rho_status);
    }
  }
  for (const TransferVariable& variable : transfers()) {
    const std::vector<double>& values = c.*variable.values;
    write_variable(group, {variable.name, {"signal"}, {static_cast<int64_t>(values.size())}}, values,
                   {kOne, variable.long_name});
    if (has_nan(values)) group.set_attribute<std::string>(variable.name, "status", c.transfer_status);
  }
  group.write_scalar<int64_t>("top_k", c.top_k);
  describe(group, "top_k", {kOne, "K of transfer"});
  write_estimate(group, "partial_rho_exact_match", "partial_rho_exact_match", c.partial_rho_exact_match,
                 "Spearman's partial rho of mean_delta_nll with exact_match_drop, given generic sensitivity");
  write_estimate(group, "partial_rho_accuracy", "partial_rho_accuracy", c.partial_rho_accuracy,
                 "Spearman's partial rho of mean_delta_nll with token_accuracy_drop, given generic sensitivity");
}

SignalComparison read_comparison(const hdf5::Group& group) {
  SignalComparison c;
  c.signal = group.read<std::string>("signal", 1).values;
  c.layer = group.read<int64_t>("layer", 1).values;
  const auto n_signals = static_cast<int64_t>(c.signal.size());
  for (const ComparisonVariable& variable : tables()) {
    const int64_t n_other = std::string(variable.other) == "layer" ? static_cast<int64_t>(c.layer.size()) : n_signals;
    c.*variable.table = read_table<double>(group, variable.name, n_signals, n_other);
    const auto status = group.string_attribute(variable.name, "status");
    if (status && std::string(variable.other) != "layer") c.rho_status = *status;
  }
  for (const TransferVariable& variable : transfers()) {
    c.*variable.values = read_variable<double>(group, variable.name, {n_signals});
    if (const auto status = group.string_attribute(variable.name, "status")) c.transfer_status = *status;
  }
  c.top_k = group.read_scalar<int64_t>("top_k");
  c.partial_rho_exact_match = read_estimate(group, "partial_rho_exact_match", "partial_rho_exact_match");
  c.partial_rho_accuracy = read_estimate(group, "partial_rho_accuracy", "partial_rho_accuracy");
  return c;
}

}  // namespace winnow
