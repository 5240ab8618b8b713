#include "results/calibration/signals_store.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/signal_specs.h"
#include "results/calibration/signals.h"
#include "results/storage/variables.h"
#include "results/storage/variables_read.h"

namespace winnow::calibration {
namespace {

constexpr const char* kEveryExampleTooShort = "every example is too short";

// Calls `use` with every signal and every variable of it.
template <typename Use>
void for_each_variable(const Use& use) {
  for (const SignalSpec& spec : signal_specs()) {
    for (const SignalVariable& variable : spec.variables) use(variable);
  }
}

std::string mean_name(const SignalSpec& spec) { return std::string("mean_") + spec.ranked; }

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
  bool has_heads = false;
  for_each_variable([&](const SignalVariable& variable) {
    const stats::Table<double>* table = m.find_signal(variable.name);
    if (table == nullptr) return;
    storage::Variable stored{variable.name, {"example", "layer"}, {m.n_examples(), m.n_layers()}};
    if (variable.axes == SignalAxes::kCellByKvHead) {
      if (!has_heads) group.make_dimension("kv_head", table->cols);
      has_heads = true;
      stored.dimensions.emplace_back("kv_head");
      stored.shape.push_back(table->cols);
    }
    storage::write_variable(group, stored, table->values, {variable.units, variable.long_name});
    if (!has_nan(table->values)) return;
    group.set_attribute<std::string>(variable.name, "status",
                                     m.layer_examples.empty() ? variable.lacking : kBeyondLayerExamples);
  });
}

void read_signals(const storage::Group& group, Measurement& m) {
  for_each_variable([&](const SignalVariable& variable) {
    if (!group.contains(variable.name)) return;
    stats::Table<double>& table = m.signals[variable.name];
    if (variable.axes == SignalAxes::kCell) {
      table = storage::read_table<double>(group, variable.name, m.n_examples(), m.n_layers());
      return;
    }
    const std::vector<int64_t> shape = group.shape(variable.name);
    table.rows = m.n_examples() * m.n_layers();
    table.cols = shape.size() == 3 ? shape[2] : 0;
    table.values = storage::read_variable<double>(group, variable.name, {m.n_examples(), m.n_layers(), table.cols});
  });
}

void write_signal_means(storage::Group& group, const Ranking& r) {
  for (const SignalSpec& spec : signal_specs()) {
    const auto found = r.signal_means.find(spec.ranked);
    if (found == r.signal_means.end()) continue;
    const std::vector<double>& values = found->second;
    const SignalVariable& variable = spec.ranked_variable();
    const char* over = *variable.lacking == '\0' ? "mean over examples of " : "mean over examples that have one of ";
    storage::write_variable(group, {mean_name(spec), {"layer"}, {static_cast<int64_t>(values.size())}}, values,
                            {variable.units, std::string(over) + spec.ranked});
    if (has_nan(values)) group.set_attribute<std::string>(mean_name(spec), "status", kEveryExampleTooShort);
  }
}

void read_signal_means(const storage::Group& group, Ranking& r) {
  for (const SignalSpec& spec : signal_specs()) {
    if (!group.contains(mean_name(spec))) continue;
    r.signal_means[spec.ranked] =
        storage::read_variable<double>(group, mean_name(spec), {static_cast<int64_t>(r.layer.size())});
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
                                       c.rho_status.empty() ? kEveryExampleTooShort : c.rho_status);
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
