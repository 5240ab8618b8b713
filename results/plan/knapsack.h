// The best setting of every layer under a budget, exactly. What an engine allocates depends on how many layers have
// each setting and on nothing else. Where it is a sum over layers, the dynamic programme runs over sums of units, of
// which only those stay that lose less than every smaller one; else it runs over numbers of layers with each setting.
// Either drops what cannot be as good as a plan that is known by the Lagrangian bound of the sum over layers
// (Pisinger 1995), for which a search that keeps the most promising few goes before it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "results/plan/pricing.h"
#include "results/stats/table.h"

namespace winnow::plan {

struct Assignment {
  std::vector<int64_t> setting;  // (layers)
  double loss = 0.0;             // sum over layers, first to last
  double price = 0.0;            // bytes
};

// Beginnings of plans that are looked at before a question is given up as too great: some 2 GB.
inline constexpr int64_t kMostBeginnings = int64_t{1} << 25;

// What was found with so many beginnings: the best assignment there is, or the best of those that were seen; none where
// no assignment that was seen is within the budget.
struct Found {
  std::optional<Assignment> best;
  bool is_exact = true;
};

// `loss` (layers, settings) of each layer under each setting; infinite where the layer cannot have it. Looks for the
// assignment of the least loss whose price is at most `budget`; ties go to the lower price, then to the smaller setting
// in the last layer that differs.
Found find_best(const stats::Table<double>& loss, const Pricing& pricing, double budget,
                int64_t most_beginnings = kMostBeginnings);
// Returns that assignment, none where every price is higher. Throws Error(kUsage) where there is too much to look at.
std::optional<Assignment> best_assignment(const stats::Table<double>& loss, const Pricing& pricing, double budget);
// Returns the least price of any division of so many layers, none where nothing runs any. Throws as best_assignment().
std::optional<double> least_price(int64_t n_layers, const Pricing& pricing);

}  // namespace winnow::plan
