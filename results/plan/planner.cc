#include "results/plan/planner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/strings.h"
#include "results/selection/methods.h"
#include "results/serving/engines.h"
#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

constexpr int64_t kResamples = 10000;
constexpr const char* kMethod = "plan";

[[noreturn]] void refuse(const std::string& what) { fail(ExitCode::kUsage, what); }

std::string engine_title(const Service& service) {
  const serving::Engine* engine = serving::find_engine(service.engine);
  return engine == nullptr ? "an ideal engine" : std::string(engine->title);
}

std::string served(const Service& service) {
  const int64_t n = service.demand.concurrency;
  return (n == 1 ? "a sequence of " : std::to_string(n) + " sequences of ") +
         std::to_string(service.demand.max_seq_len) + " tokens";
}

std::string size(double bytes) { return format_bytes(static_cast<int64_t>(bytes)); }

}  // namespace

void describe_memory(const PlannedMemory& memory, selection::Selection& selection) {
  selection.provenance.set("plan_budget", memory.budget, "");
  selection.provenance.set("plan_engine", memory.engine, "");
  selection.provenance.set("plan_max_seq_len", memory.demand.max_seq_len, "");
  selection.provenance.set("plan_concurrency", memory.demand.concurrency, "");
  selection.provenance.set("plan_bytes", static_cast<int64_t>(memory.bytes), "");
  selection.provenance.set("plan_full_attention_bytes", static_cast<int64_t>(memory.full_bytes), "");
}

int64_t Plan::n_full() const { return std::ranges::count(windows, 0); }

Planner::Planner(const selection::SelectInput& input, uint64_t seed)
    : input_(input), seed_(seed), layers_(input.results.calibration.layer) {
  const calibration::Measurement& m = input.results.calibration;
  if (std::ranges::find(m.layer_windowed_in_base, true) != m.layer_windowed_in_base.end()) {
    fail(ExitCode::kBadData,
         "the layers were measured in a base with windows, and what a plan loses is counted from full "
         "attention; calibrate with --base full");
  }
  // As make_selection() checks and reads it.
  selection::Choice no_layer;
  no_layer.method = kMethod;
  const selection::Selection as_measured = selection::make_selection(no_layer, input, "the results");
  n_layers_ = as_measured.n_layers;
  sinks_ = as_measured.sinks;
  native_.assign(static_cast<std::size_t>(n_layers_), 0);
  for (const int64_t layer : as_measured.native_layers) native_[stats::at(layer)] = as_measured.native_window;
  const bool has_types = m.by_setting.n_settings() > 0;
  const bool has_one = m.by_window.n_windows() == 0;
  windows_ = has_types ? m.by_setting.window : has_one ? std::vector{as_measured.window} : m.by_window.window;
  const auto n_windows = static_cast<int64_t>(windows_.size());
  kv_ = m.by_setting.kv;
  kv_.resize(windows_.size() + 1, KvType::kStored);
  for (int64_t w = 0; w <= n_windows; ++w) {
    stats::Table<double>& delta = delta_.emplace_back(m.n_examples(), m.n_layers());
    for (int64_t e = 0; w < n_windows && e < m.n_examples(); ++e) {
      for (int64_t l = 0; l < m.n_layers(); ++l) {
        delta(e, l) = has_types ? m.delta_nll_by_setting(e, l, w)
                      : has_one ? m.delta_nll(e, l)
                                : m.delta_nll_by_window(e, l, w);
      }
    }
  }
  for (int64_t& window : windows_) window += window > 0 ? as_measured.window_keys - as_measured.window : 0;
  const std::vector<int64_t> all = stats::iota(m.n_examples());
  stats::Table<double> loss(m.n_layers(), n_windows + 1);
  for (int64_t w = 0; w < n_windows; ++w) {
    const std::vector<double> means = stats::mean_of_rows(delta_[stats::at(w)], all);
    for (int64_t l = 0; l < m.n_layers(); ++l) loss(l, w) = means[stats::at(l)];
  }
  loss_alone_ = std::move(loss);
}

std::vector<int64_t> Planner::windows() const {
  std::set<int64_t> sizes(windows_.begin(), windows_.end());
  sizes.erase(0);
  return {sizes.begin(), sizes.end()};
}

std::vector<KvType> Planner::kv_types() const {
  std::set<KvType> types(kv_.begin(), kv_.end());
  types.erase(KvType::kStored);
  return {types.begin(), types.end()};
}

// Windows are kept as the engine does: kIdeal keeps the sinks besides.
serving::KvKind Planner::kept(int64_t window, KvType type, const Service& service) const {
  const bool has_sinks = service.engine == kIdeal && window > 0;
  return {.window = window + (has_sinks ? sinks_ : 0), .type = type};
}

Pricing Planner::pricing_of(const Service& service) const {
  std::vector<serving::KvKind> settings;
  for (std::size_t s = 0; s < kv_.size(); ++s) {
    settings.push_back(kept(s < windows_.size() ? windows_[s] : 0, kv_[s], service));
  }
  // The layers that no plan changes: those with a window of their own, and those that were not measured.
  std::vector<serving::KvKind> fixed;
  for (int64_t layer = 0; layer < n_layers_; ++layer) {
    if (std::ranges::find(layers_, layer) != layers_.end()) continue;
    fixed.push_back(kept(native_[stats::at(layer)], KvType::kStored, service));
  }
  const EngineRules rules = rules_of(service, input_.results.provenance.text("model_type"));
  return {service, rules, std::move(settings), fixed};
}

void Planner::check_engine(const Service& service) const {
  const storage::Provenance& provenance = input_.results.provenance;
  if (provenance.text("decode") == "full") {
    refuse(
        "the layers were measured with --decode full: answers see all keys, so that none can be dropped; calibrate "
        "with --decode windowed");
  }
  if (service.engine == kIdeal) return;
  const serving::Engine* engine = serving::find_engine(service.engine);
  if (engine == nullptr) {
    std::vector<std::string> names = {kIdeal};
    for (const serving::Engine& known : serving::engines()) names.emplace_back(known.target);
    require_one_of("--engine", service.engine, names);
  }
  const std::string title(engine->title);
  const std::string model_type = provenance.text("model_type");
  const std::vector<const serving::EngineRow*> rows = rows_of(service, model_type);
  if (rows.empty()) {
    refuse("--engine " + service.engine + ": " + title + " is not known to give single layers of a " + model_type +
           " a window, as those of " + serving::families_of(*engine) + "; --engine ideal plans without an engine");
  }
  if (std::ranges::all_of(rows, [](const serving::EngineRow* row) { return row->limits.period > 0; })) {
    refuse("--engine " + service.engine + ": " + title + " itself decides which layers of a " + model_type +
           " have a window");
  }
  if (sinks_ > 0 && service.engine != "swaa") {
    refuse("--engine " + service.engine + ": the layers were measured with " + std::to_string(sinks_) +
           " sink tokens, which " + title + " does not keep; calibrate with --sinks 0, or plan with --engine ideal");
  }
  if (provenance.text("positions") == selection::kByType && service.engine != "hf") {
    refuse("--engine " + service.engine + ": the layers were measured with positions by type of layer, which " + title +
           " is not known to have; use --engine hf");
  }
}

std::optional<double> Planner::allocated_bytes(const Plan& plan, const Service& service) const {
  try {
    check_engine(service);
  } catch (const Error&) {  // it says why; a table of engines has no room for that
    return std::nullopt;
  }
  Counts counts(kv_.size(), 0);
  for (const int64_t setting : plan.settings) ++counts[stats::at(setting)];
  return pricing_of(service).price(counts);
}

Planner::Costs Planner::costs(const Service& service) const {
  check_engine(service);
  Costs costs{.service = service, .pricing = pricing_of(service)};
  costs.has_one_window = rules_of(service, input_.results.provenance.text("model_type")).has_one_window;
  const auto n = static_cast<int64_t>(layers_.size());
  costs.least_bytes = least_price(n, costs.pricing).value_or(std::numeric_limits<double>::infinity());
  Counts full(kv_.size(), 0);
  full.back() = n;
  costs.full_bytes = costs.pricing.price(full).value_or(0.0);
  return costs;
}

std::vector<int64_t> Planner::windows_of(const std::vector<int64_t>& settings) const {
  std::vector<int64_t> windows = native_;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::size_t setting = stats::at(settings[i]);
    windows[stats::at(layers_[i])] = setting < windows_.size() ? windows_[setting] : 0;
  }
  return windows;
}

std::vector<double> Planner::loss_by_example(const std::vector<int64_t>& settings) const {
  const int64_t n = input_.results.calibration.n_examples();
  std::vector<double> loss(stats::at(n), 0.0);
  for (int64_t e = 0; e < n; ++e) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      loss[stats::at(e)] += delta_[stats::at(settings[i])](e, static_cast<int64_t>(i));
    }
  }
  return loss;
}

std::vector<double> Planner::bytes_of_settings(const Service& service) const {
  std::vector<double> bytes;
  for (std::size_t s = 0; s <= windows_.size(); ++s) {
    const std::vector<int64_t> one = {s < windows_.size() ? windows_[s] + sinks_ : 0};
    const std::vector<KvType> type = {kv_[s]};
    bytes.push_back(serving::kv_allocation(kIdeal, one, service.shape, service.demand, type).ideal_bytes);
  }
  return bytes;
}

std::vector<KvType> Planner::kv_of(const std::vector<int64_t>& settings) const {
  std::vector<KvType> kv(stats::at(n_layers_), KvType::kStored);
  for (std::size_t i = 0; i < layers_.size(); ++i) kv[stats::at(layers_[i])] = kv_[stats::at(settings[i])];
  const bool is_stored = std::ranges::all_of(kv, [](KvType type) { return type == KvType::kStored; });
  return is_stored ? std::vector<KvType>{} : kv;
}

void Planner::add_interval(const Assignment& assignment, Plan& plan) const {
  const int64_t n = input_.results.calibration.n_examples();
  plan.ci_low = plan.ci_high = std::numeric_limits<double>::quiet_NaN();
  if (n < 2) return;
  // Layers may have fewer examples than there are. Those that have the same ones are added up first: so a plan of a
  // complete table is one column.
  std::map<int64_t, std::vector<double>> by_count;
  const std::vector<int64_t>& counts = input_.results.calibration.layer_examples;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const int64_t n_own = counts.empty() ? n : counts[i];
    std::vector<double>& sums = by_count[n_own];
    sums.resize(stats::at(n_own), 0.0);
    for (int64_t e = 0; e < n_own; ++e) {
      sums[stats::at(e)] += delta_[stats::at(assignment.setting[i])](e, static_cast<int64_t>(i));
    }
  }
  std::vector<double> means;
  for (int64_t r = 0; r < kResamples; ++r) {
    const std::vector<int64_t> draw = stats::draw_rows(n, seed_, r);
    double mean = 0.0;
    for (const auto& [n_own, sums] : by_count) {
      std::vector<int64_t> own = draw;
      if (n_own < n) std::erase_if(own, [end = n_own](int64_t row) { return row >= end; });
      mean += own.empty() ? stats::mean_of(sums) : stats::mean_of(sums, own);
    }
    means.push_back(mean);
  }
  const stats::Interval interval = stats::percentile_interval(means);
  plan.ci_low = interval.low;
  plan.ci_high = interval.high;
}

Plan Planner::best(const Costs& costs, double budget, const std::string& flag) const {
  const std::string takes = " for " + served(costs.service) + " on " + engine_title(costs.service);
  if (budget > costs.full_bytes) {
    refuse(flag + " is more than the " + size(costs.full_bytes) + " that full attention takes" + takes +
           ", so that no layer needs a window; the most that makes sense is 100%");
  }
  const std::optional<Assignment> found = best_assignment(loss_alone_, costs.pricing, budget);
  if (!found) {
    refuse(flag + " is less than any plan takes" + takes + "; the least is " + size(costs.least_bytes) + ", " +
           std::to_string(static_cast<int64_t>(costs.least_bytes)) + " bytes, of " + size(costs.full_bytes) +
           " with full attention");
  }
  Plan plan;
  plan.settings = found->setting;
  plan.windows = windows_of(found->setting);
  plan.kv = kv_of(found->setting);
  plan.bytes = found->price;
  plan.loss = found->loss;
  add_interval(*found, plan);
  return plan;
}

std::vector<PlanLook> Planner::settle(const Costs& costs, double budget, double confidence,
                                      const race::Tolerance& tolerance) const {
  std::vector<stats::Table<double>> shared = delta_;
  for (stats::Table<double>& delta : shared) {
    delta.rows = input_.results.calibration.n_shared_examples();
    delta.values.resize(stats::at(delta.rows * delta.cols));
  }
  // Settings in types of keys and values are in the order in which they were measured.
  int64_t narrowest = 0;
  for (std::size_t s = 0; s < windows_.size(); ++s) {
    const bool is_window = windows_[s] > 0 && kv_[s] == KvType::kStored;
    if (is_window && windows_[s] < windows_[stats::at(narrowest)]) narrowest = static_cast<int64_t>(s);
  }
  return plan::settle(shared, costs.pricing, budget, confidence, tolerance, narrowest);
}

selection::Selection Planner::selection(const Plan& plan, const Costs& costs, const std::string& budget,
                                        const std::string& origin) const {
  selection::Choice choice;
  choice.method = kMethod;
  for (int64_t layer = 0; layer < n_layers_; ++layer) {
    if (plan.windows[stats::at(layer)] == 0) choice.layers.push_back(layer);
  }
  selection::Selection s = selection::make_selection(choice, input_, origin);
  s.layer_windows = plan.windows;
  s.layer_kv = plan.kv;
  describe_memory({.budget = budget,
                   .engine = costs.service.engine,
                   .demand = costs.service.demand,
                   .bytes = plan.bytes,
                   .full_bytes = costs.full_bytes},
                  s);
  s.provenance.set("plan_predicted_delta_nll", plan.loss, "");
  if (!std::isnan(plan.ci_low)) {
    s.provenance.set("plan_predicted_delta_nll_ci_low", plan.ci_low, "");
    s.provenance.set("plan_predicted_delta_nll_ci_high", plan.ci_high, "");
  }
  return s;
}

}  // namespace winnow::plan
