// Plans that are better together than the sum of their layers says: for each budget a search around the plan that adds
// up least, by measured losses. Pure functions, which measure through a callback.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "results/plan/knapsack.h"
#include "results/plan/loss_model.h"
#include "results/stats/table.h"

namespace winnow::plan {

// Measures plans on the first n_examples and returns the NLL of each, nats per token, plans in their order, by example;
// none where the search is to end here. `base` is a plan that most of them differ from in one layer: a sweep from there
// is cheapest. It was measured before.
using MeasurePlans = std::function<std::optional<std::vector<std::vector<double>>>(
    const Settings& base, const std::vector<Settings>& plans, int64_t n_examples)>;

struct RefinementRequest {
  // (layers, settings): loss of each layer alone; the last setting is full attention, 0.
  stats::Table<double> alone;
  Pricing pricing;              // of these settings
  std::vector<double> budgets;  // bytes, rising; each at least the least price
  int64_t n_examples = 1;
  int64_t steps = 0;  // for each budget, at most
  int64_t beam = 1;   // plans that a step goes on from
};

// Of one budget; plans are indices of Refinement::plans.
struct RefinedBudget {
  int64_t sum_of_layers = 0;  // the plan whose layers cost least when they are added up
  int64_t best = 0;           // the plan that fits and measures best, or the sum's, where that is as good
  int64_t steps = 0;          // that were taken
  bool is_settled = false;    // the last of them found no better plan
};

struct Refinement {
  // That were measured on all examples, in the order of measuring; the first has full attention everywhere.
  std::vector<Settings> plans;
  std::vector<double> price;           // (plans), infinite where nothing runs it
  int64_t n_dropped = 0;               // plans that were measured on the first examples only
  std::vector<RefinedBudget> budgets;  // in the order of the request's
};

// Candidates that a step measures for a budget besides the single changes.
inline constexpr int64_t kCandidates = 16;

// A plan that does not belong to the start is measured on the first kFirstExamples, or a quarter of them all if that is
// more, then on twice as many, and so on: as long as it fits the budget and does not lose more than the best plan by
// kDropErrors standard errors of their difference (racing, Maron and Moore 1994). What is dropped still serves the
// model.
inline constexpr int64_t kFirstExamples = 16;
inline constexpr double kDropErrors = 2.0;

// The best of many plans is measured too well on the examples that chose it: the plan that adds up least, which they
// did not choose among these, stays unless it loses this many standard errors more (the rule of one standard error of
// Breiman et al. 1984).
inline constexpr double kGainErrors = 1.0;

// First measures, for every budget, the plan that adds up least, and for each setting the best one of layers with that
// setting and with full attention. Then takes steps, budget by budget. A step goes on from the `beam` best plans that
// fit, whatever budget they were found for. It measures every change of one layer of them, where something runs it,
// then the kCandidates most promising plans by LossModel: changes of two layers, the knapsack solved again for the
// losses around the plan, also with a price on every layer that changes and with all but half of the layers as they
// are, as far as kMostQuick beginnings lead. A budget is settled when a step leaves its `beam` best plans as they were.
// No plan is measured twice on an example. Ties go to the lower price, then to the plan with the smaller setting in the
// first layer that differs. Where measuring ends, what was found until then is returned, without the best plans.
Refinement refine(const RefinementRequest& request, const MeasurePlans& measure);

// Returns the most plans that refine() measures.
int64_t most_plans(const RefinementRequest& request);

// Layers that change their setting from a budget to the next greater one.
struct Turnover {
  int64_t n_changed = 0;
  int64_t n_narrowed = 0;  // of these, to a setting that takes less, although there is more room
};
// `bytes` (settings): what a layer with each setting takes.
Turnover turnover(const Settings& smaller, const Settings& greater, const std::vector<double>& bytes);

}  // namespace winnow::plan
