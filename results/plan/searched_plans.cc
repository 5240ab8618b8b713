#include "results/plan/searched_plans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/random.h"
#include "results/search/statistics.h"
#include "results/selection/methods.h"
#include "results/stats/correlation.h"
#include "results/stats/resampling.h"

namespace winnow::plan {
namespace {

constexpr int64_t kDraws = 10'000;
// Of correlations, each of which ranks all plans.
constexpr int64_t kRankedDraws = 1'000;

std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> less;
  for (std::size_t e = 0; e < a.size(); ++e) less.push_back(a[e] - b[e]);
  return less;
}

MeanLoss mean_loss(const std::vector<double>& by_example, uint64_t seed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  MeanLoss loss{stats::mean_of(by_example), nan, nan};
  const auto n = static_cast<int64_t>(by_example.size());
  if (n < 2) return loss;
  std::vector<double> means;
  for (int64_t r = 0; r < kDraws; ++r) {
    means.push_back(stats::mean_of(by_example, stats::draw_rows(n, seed, r, kSearchStream)));
  }
  const stats::Interval interval = stats::percentile_interval(means);
  loss.ci_low = interval.low;
  loss.ci_high = interval.high;
  return loss;
}

// rho between the means of two figures of each plan, with its interval over resampled examples.
template <typename First, typename Second>
stats::Estimate rho_of(int64_t n_plans, int64_t n_examples, const First& first, const Second& second, uint64_t seed) {
  const auto rho = [&](std::span<const int64_t> drawn) {
    std::vector<double> a, b;
    for (int64_t p = 0; p < n_plans; ++p) {
      a.push_back(stats::mean_of(first(p), drawn));
      b.push_back(stats::mean_of(second(p), drawn));
    }
    return stats::spearman(a, b);
  };
  const std::optional<double> value = rho(stats::iota(n_examples));
  if (!value) {
    const auto none = stats::Figure::undefined(n_plans < 2 ? "fewer than two plans" : "the same in all plans");
    return {none, none, none};
  }
  const auto figure = stats::Figure::of(*value);
  if (n_examples < 2) return stats::with_undefined_interval(figure, "one example");
  stats::Spread spread;
  for (int64_t r = 0; r < kRankedDraws; ++r) {
    spread.add(rho(stats::draw_rows(n_examples, seed, r, kSearchStream)));
  }
  return spread.around(figure, "not defined in many resamples");
}

}  // namespace

PlanLosses losses_of(const SearchedPlans& found, const SearchedPlan& plan, const std::vector<double>& by_example,
                     uint64_t seed) {
  const SearchedPlan& full = found.plans.front();
  const std::vector<double> measured = difference(plan.figures.nll, full.figures.nll);
  PlanLosses losses{.predicted = mean_loss(by_example, seed),
                    .measured = mean_loss(measured, seed),
                    .beyond = mean_loss(difference(measured, by_example), seed),
                    .is_verified = !plan.verified.empty(),
                    .verified = {}};
  if (losses.is_verified) losses.verified = mean_loss(difference(plan.verified.nll, full.verified.nll), seed);
  return losses;
}

void correlate(SearchedPlans& found, const stats::Table<double>& predicted, uint64_t seed) {
  const auto n_examples = static_cast<int64_t>(found.example_id.size());
  std::vector<std::vector<double>> sums, losses;
  std::vector<const SearchedPlan*> verified;
  for (std::size_t p = 0; p < found.plans.size(); ++p) {
    const auto begin = predicted.values.begin() + static_cast<std::ptrdiff_t>(p) * predicted.cols;
    sums.emplace_back(begin, begin + predicted.cols);
    losses.push_back(difference(found.plans[p].figures.nll, found.plans.front().figures.nll));
    if (p > 0 && !found.plans[p].verified.empty()) verified.push_back(&found.plans[p]);
  }
  found.rho_predicted = rho_of(
      static_cast<int64_t>(found.plans.size()),
      n_examples, [&](int64_t p) -> const auto& { return sums[stats::at(p)]; },
      [&](int64_t p) -> const auto& { return losses[stats::at(p)]; }, seed);
  found.n_verified = static_cast<int64_t>(verified.size());
  if (verified.empty()) return;
  found.rho_verified = rho_of(
      found.n_verified,
      found.n_verified_examples, [&](int64_t p) -> const auto& { return verified[stats::at(p)]->figures.nll; },
      [&](int64_t p) -> const auto& { return verified[stats::at(p)]->verified.nll; }, seed);
}

std::vector<int64_t> choose_verified_plans(const Refinement& found, int64_t n_rejected, uint64_t seed) {
  std::vector<int64_t> chosen = {0};
  for (const RefinedBudget& budget : found.budgets) {
    for (const int64_t p : {budget.sum_of_layers, budget.best}) {
      if (std::ranges::find(chosen, p) == chosen.end()) chosen.push_back(p);
    }
  }
  chosen = search::choose_verified(chosen, static_cast<int64_t>(found.plans.size()), n_rejected, seed);
  chosen.erase(chosen.begin());  // full attention
  return chosen;
}

int64_t confirmed_plan(const SearchedPlans& found, const RefinedBudget& budget) {
  const std::vector<double>& searched = found.plans[stats::at(budget.best)].verified.nll;
  const std::vector<double>& by_sum = found.plans[stats::at(budget.sum_of_layers)].verified.nll;
  if (searched.empty() || by_sum.empty()) return budget.best;
  return stats::mean_of(searched) < stats::mean_of(by_sum) ? budget.best : budget.sum_of_layers;
}

selection::Selection selection_of(const SearchedPlans& found, const SearchedBudget& budget,
                                  const storage::Provenance& provenance, const std::string& origin) {
  const SearchedPlan& plan = found.plans[stats::at(budget.best)];
  selection::SelectInput input;
  input.results.provenance = provenance;
  input.searched = search::BestPatterns{.keep = {},
                                        .full_layers = {},
                                        .n_examples = static_cast<int64_t>(found.example_id.size()),
                                        .is_verified = budget.losses_of_best.is_verified,
                                        .token_hash = found.token_hash};
  selection::Choice choice;
  choice.method = "plan";
  for (int64_t layer = 0; layer < found.n_layers; ++layer) {
    if (plan.windows[stats::at(layer)] == 0) choice.layers.push_back(layer);
  }
  selection::Selection s = selection::make_selection(choice, input, origin);
  s.layer_windows = plan.windows;
  s.layer_kv = plan.kv;
  describe_memory({.budget = budget.text,
                   .engine = found.engine,
                   .demand = {.max_seq_len = found.max_seq_len, .concurrency = found.concurrency},
                   .bytes = plan.bytes,
                   .full_bytes = found.full_bytes},
                  s);
  const auto describe = [&](const std::string& name, const MeanLoss& loss) {
    s.provenance.set(name, loss.value, "");
    if (std::isnan(loss.ci_low)) return;
    s.provenance.set(name + "_ci_low", loss.ci_low, "");
    s.provenance.set(name + "_ci_high", loss.ci_high, "");
  };
  describe("plan_predicted_delta_nll", budget.losses_of_best.predicted);
  describe("plan_measured_delta_nll", budget.losses_of_best.measured);
  if (budget.losses_of_best.is_verified) describe("plan_verified_delta_nll", budget.losses_of_best.verified);
  return s;
}

}  // namespace winnow::plan
