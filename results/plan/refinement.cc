#include "results/plan/refinement.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

constexpr int64_t kNeighbourhoods = 8;       // sets of layers that a step frees
constexpr int64_t kPairs = 4 * kCandidates;  // changes of two layers that the model looks at
constexpr int64_t kMostQuick = 1 << 20;      // beginnings of plans that a knapsack of a step looks at: a second
// Prices on a layer that changes, as quantiles of what single changes gain or cost: from none, which trusts the
// losses around the plan however far it goes, to one that few changes are worth.
constexpr std::array<double, 3> kChangeQuantiles = {0.25, 0.5, 0.75};

// Mean of paired differences, with its standard error.
struct Difference {
  double mean = 0.0;
  double error = 0.0;
};

class Refiner {
 public:
  Refiner(const RefinementRequest& request, const MeasurePlans& measure)
      : request_(request),
        measure_(measure),
        n_layers_(request.alone.rows),
        n_settings_(request.alone.cols),
        model_(request.alone) {
    for (int64_t n = std::max(kFirstExamples, (request.n_examples + 3) / 4); n < request.n_examples; n *= 2) {
      stages_.push_back(n);
    }
    stages_.push_back(request.n_examples);
  }

  Refinement run() {
    budgets_.resize(request_.budgets.size());
    if (start() && take_steps()) {
      for (std::size_t b = 0; b < request_.budgets.size(); ++b) {
        budgets_[b].best = chosen(request_.budgets[b], budgets_[b].sum_of_layers);
      }
    }
    return result();
  }

 private:
  bool start();
  bool take_steps();
  bool take_step(double limit, RefinedBudget& budget);
  bool measure(const Settings& base, const std::vector<Settings>& plans, int64_t n_examples);
  bool race(double limit, const Settings& base, std::vector<Settings> plans);
  Refinement result() const;
  std::vector<Settings> single_changes(const Settings& base) const;
  std::vector<Settings> candidates(double limit, const Settings& base);
  std::vector<Settings> changed_pairs(double limit, const Settings& base, const stats::Table<double>& gain) const;
  std::vector<Settings> solved_again(double limit, const Settings& base, const stats::Table<double>& gain) const;
  std::vector<Settings> freed(double limit, const Settings& base, const stats::Table<double>& gain);
  std::vector<Settings> of_two_settings(double limit) const;

  Counts counts_of(const Settings& plan) const {
    Counts counts(stats::at(n_settings_), 0);
    for (const int64_t setting : plan) ++counts[stats::at(setting)];
    return counts;
  }
  double price_of_counts(const Counts& counts) const {
    return request_.pricing.price(counts).value_or(std::numeric_limits<double>::infinity());
  }
  double price_of(const Settings& plan) const { return price_of_counts(counts_of(plan)); }
  bool is_measured(int64_t p) const { return static_cast<int64_t>(nll_[stats::at(p)].size()) == request_.n_examples; }
  // What a plan loses more than another, on the examples that it was measured on; they are the other's as well.
  Difference difference(int64_t p, int64_t other) const;
  bool is_dropped(double limit, int64_t p) const;
  // Whether more of the plan is to be measured for this budget.
  bool is_open(double limit, const Settings& plan) const {
    const auto known = at_.find(plan);
    return known == at_.end() || (!is_measured(known->second) && !is_dropped(limit, known->second));
  }
  // The indices of the best plans that fit, of those measured on all examples.
  std::vector<int64_t> best_plans(double limit, int64_t n) const;
  int64_t chosen(double limit, int64_t sum_of_layers) const;
  // Solves for these layers alone, with all others as in `base`; none where nothing fits.
  std::optional<Settings> solve(double limit, const Settings& base, const std::vector<int64_t>& layers,
                                const stats::Table<double>& loss, const std::vector<int64_t>& settings) const;

  const RefinementRequest& request_;
  const MeasurePlans& measure_;
  int64_t n_layers_;
  int64_t n_settings_;
  LossModel model_;
  std::vector<int64_t> stages_;  // examples that a plan is measured on, rising, to all
  // Plans that were measured on any example; the first has full attention everywhere.
  std::vector<Settings> plans_;
  std::vector<double> price_;
  std::vector<std::vector<double>> nll_;  // (plans) by example, nats per token: of the first so many
  std::vector<double> mean_;              // (plans), of these
  std::vector<double> loss_;              // (plans), mean above the first plan on the same examples
  std::map<Settings, int64_t> at_;        // place of a plan
  std::vector<RefinedBudget> budgets_;
  uint64_t n_drawn_ = 0;
};

double mean_of_first(const std::vector<double>& values, std::size_t n) {
  return std::accumulate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n), 0.0) / static_cast<double>(n);
}

Difference Refiner::difference(int64_t p, int64_t other) const {
  const std::vector<double>& a = nll_[stats::at(p)];
  const std::vector<double>& b = nll_[stats::at(other)];
  const auto n = static_cast<double>(a.size());
  Difference d;
  for (std::size_t e = 0; e < a.size(); ++e) d.mean += (a[e] - b[e]) / n;
  double squares = 0.0;
  for (std::size_t e = 0; e < a.size(); ++e) squares += (a[e] - b[e] - d.mean) * (a[e] - b[e] - d.mean);
  if (a.size() > 1) d.error = std::sqrt(squares / (n - 1.0) / n);
  return d;
}

// Measured against the worst of the plans that a step goes on from.
bool Refiner::is_dropped(double limit, int64_t p) const {
  if (price_[stats::at(p)] > limit) return true;
  const std::vector<int64_t> rivals = best_plans(limit, request_.beam);
  if (static_cast<int64_t>(rivals.size()) < request_.beam) return false;
  const Difference d = difference(p, rivals.back());
  return d.mean > kDropErrors * d.error;
}

int64_t Refiner::chosen(double limit, int64_t sum_of_layers) const {
  const int64_t best = best_plans(limit, 1).front();
  const Difference d = difference(sum_of_layers, best);
  return d.mean <= kGainErrors * d.error ? sum_of_layers : best;
}

// Measures what is missing of the first n_examples of these.
bool Refiner::measure(const Settings& base, const std::vector<Settings>& plans, int64_t n_examples) {
  std::vector<Settings> missing;
  for (const Settings& plan : plans) {
    const auto known = at_.find(plan);
    const bool is_known = known != at_.end() && nll_[stats::at(known->second)].size() >= stats::at(n_examples);
    if (!is_known && std::ranges::find(missing, plan) == missing.end()) missing.push_back(plan);
  }
  if (missing.empty()) return true;
  auto nll = measure_(base, missing, n_examples);
  if (!nll) return false;
  if (nll->size() != missing.size()) fail(ExitCode::kInternal, "not all plans of a refinement's step were measured");
  for (std::size_t i = 0; i < missing.size(); ++i) {
    const auto [place, is_new] = at_.emplace(missing[i], static_cast<int64_t>(plans_.size()));
    const std::size_t p = stats::at(place->second);
    if (is_new) {
      price_.push_back(price_of(missing[i]));
      plans_.push_back(std::move(missing[i]));
      nll_.emplace_back();
      mean_.push_back(0.0);
      loss_.push_back(0.0);
    }
    nll_[p] = std::move((*nll)[i]);
    mean_[p] = mean_of_first(nll_[p], nll_[p].size());
    loss_[p] = mean_[p] - mean_of_first(nll_.front(), nll_[p].size());
  }
  return true;
}

// Measures plans on more and more examples, as long as they may be among the best for this budget.
bool Refiner::race(double limit, const Settings& base, std::vector<Settings> plans) {
  for (const int64_t n_examples : stages_) {
    if (!measure(base, plans, n_examples)) return false;
    std::erase_if(plans, [&](const Settings& plan) { return !is_open(limit, plan); });
  }
  return true;
}

// Of the plans that were measured on all examples.
Refinement Refiner::result() const {
  Refinement result{.plans = {}, .price = {}, .n_dropped = 0, .budgets = budgets_};
  std::vector<int64_t> place(plans_.size(), 0);
  for (std::size_t p = 0; p < plans_.size(); ++p) {
    if (!is_measured(static_cast<int64_t>(p))) {
      ++result.n_dropped;
      continue;
    }
    place[p] = static_cast<int64_t>(result.plans.size());
    result.plans.push_back(plans_[p]);
    result.price.push_back(price_[p]);
  }
  for (RefinedBudget& budget : result.budgets) {
    if (place.empty()) break;
    budget.sum_of_layers = place[stats::at(budget.sum_of_layers)];
    budget.best = place[stats::at(budget.best)];
  }
  return result;
}

std::vector<int64_t> Refiner::best_plans(double limit, int64_t n) const {
  std::vector<int64_t> fitting;
  for (int64_t p = 0; p < static_cast<int64_t>(plans_.size()); ++p) {
    if (price_[stats::at(p)] <= limit && is_measured(p)) fitting.push_back(p);
  }
  const auto key = [&](int64_t p) { return std::tie(mean_[stats::at(p)], price_[stats::at(p)], plans_[stats::at(p)]); };
  const auto n_best = static_cast<std::ptrdiff_t>(std::min(fitting.size(), stats::at(n)));
  std::partial_sort(fitting.begin(), fitting.begin() + n_best, fitting.end(),
                    [&](int64_t a, int64_t b) { return key(a) < key(b); });
  fitting.resize(static_cast<std::size_t>(n_best));
  return fitting;
}

// Full attention, and what each budget begins with.
bool Refiner::start() {
  const Settings full(stats::at(n_layers_), n_settings_ - 1);
  std::vector<Settings> plans = {full};
  for (const double limit : request_.budgets) {
    const std::optional<Assignment> best = best_assignment(request_.alone, request_.pricing, limit);
    if (!best) fail(ExitCode::kInternal, "nothing fits a budget of a refinement");
    plans.push_back(best->setting);
  }
  if (!measure(full, plans, request_.n_examples)) return false;
  for (std::size_t b = 0; b < budgets_.size(); ++b) budgets_[b].sum_of_layers = at_.at(plans[b + 1]);
  return std::ranges::all_of(request_.budgets, [&](double limit) { return race(limit, full, of_two_settings(limit)); });
}

bool Refiner::take_steps() {
  for (int64_t step = 0; step < request_.steps; ++step) {
    for (std::size_t b = 0; b < request_.budgets.size(); ++b) {
      if (!budgets_[b].is_settled && !take_step(request_.budgets[b], budgets_[b])) return false;
    }
  }
  return true;
}

// For each setting the best plan of layers with it and with full attention: the rule of one window, which may be better
// than the sum of layers where several settings are tempting one by one.
std::vector<Settings> Refiner::of_two_settings(double limit) const {
  const Settings full(stats::at(n_layers_), n_settings_ - 1);
  std::vector<Settings> plans;
  for (int64_t setting = 0; setting + 1 < n_settings_; ++setting) {
    std::optional<Settings> plan =
        solve(limit, full, stats::iota(n_layers_), request_.alone, {setting, n_settings_ - 1});
    if (plan) plans.push_back(*std::move(plan));
  }
  return plans;
}

std::optional<Settings> Refiner::solve(double limit, const Settings& base, const std::vector<int64_t>& layers,
                                       const stats::Table<double>& loss, const std::vector<int64_t>& settings) const {
  stats::Table<double> open(n_layers_, n_settings_, std::numeric_limits<double>::infinity());
  for (int64_t layer = 0; layer < n_layers_; ++layer) open(layer, base[stats::at(layer)]) = 0.0;
  for (const int64_t layer : layers) {
    open(layer, base[stats::at(layer)]) = std::numeric_limits<double>::infinity();
    for (const int64_t setting : settings) open(layer, setting) = loss(layer, setting);
  }
  Found found = find_best(open, request_.pricing, limit, kMostQuick);
  return found.best ? std::optional(std::move(found.best->setting)) : std::nullopt;
}

bool Refiner::take_step(double limit, RefinedBudget& budget) {
  ++budget.steps;
  const std::vector<int64_t> bases = best_plans(limit, request_.beam);
  for (const int64_t p : bases) {
    const Settings base = plans_[stats::at(p)];
    if (!race(limit, base, single_changes(base))) return false;
  }
  for (const int64_t p : bases) {
    const Settings base = plans_[stats::at(p)];
    if (!race(limit, base, candidates(limit, base))) return false;
  }
  budget.is_settled = best_plans(limit, request_.beam) == bases;
  return true;
}

// Also those that do not fit: together with another change they may.
std::vector<Settings> Refiner::single_changes(const Settings& base) const {
  std::vector<Settings> plans;
  for (std::size_t layer = 0; layer < base.size(); ++layer) {
    for (int64_t setting = 0; setting < n_settings_; ++setting) {
      Settings plan = base;
      plan[layer] = setting;
      if (setting != base[layer] && std::isfinite(price_of(plan))) plans.push_back(std::move(plan));
    }
  }
  return plans;
}

std::vector<Settings> Refiner::candidates(double limit, const Settings& base) {
  const LossModel::Forecast forecast = model_.around(base, plans_, loss_);
  // What each change of a layer costs around the plan.
  stats::Table<double> gain(n_layers_, n_settings_);
  const int64_t here = at_.at(base);
  for (int64_t layer = 0; layer < n_layers_; ++layer) {
    for (int64_t setting = 0; setting < n_settings_; ++setting) {
      Settings plan = base;
      plan[stats::at(layer)] = setting;
      const auto known = at_.find(plan);
      gain(layer, setting) =
          known == at_.end() ? forecast.loss(plan) - loss_[stats::at(here)] : difference(known->second, here).mean;
    }
  }
  std::vector<Settings> found = changed_pairs(limit, base, gain);
  for (auto& more : {solved_again(limit, base, gain), freed(limit, base, gain)}) {
    found.insert(found.end(), more.begin(), more.end());
  }
  std::vector<std::pair<double, Settings>> promising;
  for (Settings& plan : found) {
    if (is_open(limit, plan)) promising.emplace_back(forecast.loss(plan), std::move(plan));
  }
  std::ranges::sort(promising);
  promising.erase(std::unique(promising.begin(), promising.end()), promising.end());
  promising.resize(std::min(promising.size(), stats::at(kCandidates)));
  std::vector<Settings> plans;
  for (auto& [loss, plan] : promising) plans.push_back(std::move(plan));
  return plans;
}

// Changes of two layers that fit, by the sum of both changes: among them every swap of two layers' settings.
std::vector<Settings> Refiner::changed_pairs(double limit, const Settings& base,
                                             const stats::Table<double>& gain) const {
  struct Change {
    int64_t layer, setting;
  };
  std::vector<Change> changes;
  for (int64_t layer = 0; layer < n_layers_; ++layer) {
    for (int64_t setting = 0; setting < n_settings_; ++setting) {
      if (setting != base[stats::at(layer)]) changes.push_back({layer, setting});
    }
  }
  std::vector<std::tuple<double, std::size_t, std::size_t>> pairs;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    for (std::size_t j = i + 1; j < changes.size(); ++j) {
      if (changes[i].layer == changes[j].layer) continue;
      Counts counts = counts_of(base);
      for (const Change& change : {changes[i], changes[j]}) {
        --counts[stats::at(base[stats::at(change.layer)])];
        ++counts[stats::at(change.setting)];
      }
      if (price_of_counts(counts) > limit) continue;
      pairs.emplace_back(gain(changes[i].layer, changes[i].setting) + gain(changes[j].layer, changes[j].setting), i, j);
    }
  }
  std::ranges::sort(pairs);
  std::vector<Settings> plans;
  for (const auto& [sum, i, j] : pairs) {
    Settings plan = base;
    for (const Change& change : {changes[i], changes[j]}) plan[stats::at(change.layer)] = change.setting;
    if (!is_open(limit, plan)) continue;
    plans.push_back(std::move(plan));
    if (static_cast<int64_t>(plans.size()) == kPairs) break;
  }
  return plans;
}

// The knapsack for the losses around the plan, without and with prices on every layer that changes.
std::vector<Settings> Refiner::solved_again(double limit, const Settings& base,
                                            const stats::Table<double>& gain) const {
  std::vector<Settings> plans;
  std::vector<double> sizes;
  for (const double value : gain.values) {
    if (value != 0.0) sizes.push_back(std::abs(value));
  }
  std::ranges::sort(sizes);
  std::vector<double> change_prices = {0.0};
  for (const double quantile : kChangeQuantiles) {
    if (sizes.empty()) break;
    change_prices.push_back(sizes[static_cast<std::size_t>(quantile * static_cast<double>(sizes.size() - 1))]);
  }
  const std::vector<int64_t> layers = stats::iota(n_layers_);
  const std::vector<int64_t> settings = stats::iota(n_settings_);
  for (const double change_price : change_prices) {
    stats::Table<double> loss = gain;
    for (int64_t layer = 0; layer < n_layers_; ++layer) {
      for (int64_t setting = 0; setting < n_settings_; ++setting) {
        loss(layer, setting) += setting == base[stats::at(layer)] ? 0.0 : change_price;
      }
    }
    std::optional<Settings> plan = solve(limit, base, layers, loss, settings);
    if (plan) plans.push_back(*std::move(plan));
  }
  return plans;
}

// Large neighbourhoods: half of the layers, drawn, are chosen anew together, the others stay.
std::vector<Settings> Refiner::freed(double limit, const Settings& base, const stats::Table<double>& gain) {
  const int64_t n_free = (n_layers_ + 1) / 2;
  const std::vector<int64_t> settings = stats::iota(n_settings_);
  std::vector<Settings> plans;
  for (int64_t n = 0; n < kNeighbourhoods; ++n) {
    std::vector<int64_t> layers = stats::iota(n_layers_);
    // From the end of the stream, where no example of an interval is drawn.
    RandomStream(0, kSearchStream, UINT64_MAX - 1 - n_drawn_++).shuffle(std::span(layers));
    layers.resize(stats::at(n_free));
    std::ranges::sort(layers);
    std::optional<Settings> plan = solve(limit, base, layers, gain, settings);
    if (plan) plans.push_back(*std::move(plan));
  }
  return plans;
}

}  // namespace

Refinement refine(const RefinementRequest& request, const MeasurePlans& measure) {
  return Refiner(request, measure).run();
}

int64_t most_plans(const RefinementRequest& request) {
  const auto n_budgets = static_cast<double>(request.budgets.size());
  const auto per_base = static_cast<double>(request.alone.rows * (request.alone.cols - 1) + kCandidates);
  const double most = 1.0 + n_budgets * static_cast<double>(request.alone.cols) +
                      n_budgets * static_cast<double>(request.steps) * static_cast<double>(request.beam) * per_base;
  return most < 9.0e18 ? static_cast<int64_t>(most) : INT64_MAX;
}

Turnover turnover(const Settings& smaller, const Settings& greater, const std::vector<double>& bytes) {
  Turnover turnover;
  for (std::size_t layer = 0; layer < smaller.size(); ++layer) {
    if (smaller[layer] == greater[layer]) continue;
    ++turnover.n_changed;
    turnover.n_narrowed += bytes[stats::at(greater[layer])] < bytes[stats::at(smaller[layer])] ? 1 : 0;
  }
  return turnover;
}

}  // namespace winnow::plan
