// How many examples a plan needed: whether another plan within the same memory could be better than the one chosen, by
// what was measured. The looks, their errors and the assumption are those of results/race/race.h.
#pragma once

#include <cstdint>
#include <vector>

#include "results/plan/knapsack.h"
#include "results/race/race.h"

namespace winnow::plan {

struct PlanLook {
  int64_t n_examples = 0;
  double gain = 0.0;            // upper bound, nats per token: predicted loss of the plan less that of the best
  double tolerance_nats = 0.0;  // nats per token

  bool is_settled() const { return gain <= tolerance_nats; }
};

// Looks at the plan of the first 16, 24, 32, ... examples and of all. `delta`: by setting, (examples, layers) in nats
// per token, the last setting being full attention, whose deltas are 0. `pricing`: of divisions of the layers. A
// tolerance that is a share is of what the setting `narrowest` costs in all layers at least. None where no plan is
// within the budget.
std::vector<PlanLook> settle(const std::vector<stats::Table<double>>& delta, const Pricing& pricing, double budget,
                             double confidence, const race::Tolerance& tolerance, int64_t narrowest = 0);

}  // namespace winnow::plan
