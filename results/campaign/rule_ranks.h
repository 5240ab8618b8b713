// Which rule to choose layers by: the rules of whole patterns, ranked on the held-out examples of several models.
// README.md one folder up defines each figure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/campaign/collection.h"
#include "results/stats/figure.h"
#include "results/stats/table.h"

namespace winnow::campaign {

struct RankedModel {
  std::string name;                          // as the sweep names it
  int64_t n_cells = 0;                       // evaluations
  std::vector<std::string> leading_figures;  // that these are ranked by, each once
};

// The rules at one budget. Tables are (models, rules) of the study, NaN for a model without that budget and for a rule
// that is not in every evaluation; values of a model are means over its evaluations.
struct RankedBudget {
  int64_t divisor = 0;              // K = floor(layers / divisor)
  std::vector<int64_t> keep{};      // (models): K; 0: the model has no pattern of that budget
  int64_t n_models = 0;             // that have
  std::vector<bool> is_compared{};  // (rules)
  stats::Table<double> rank;        // by the leading figure's loss; 1 loses least, ties share the mean of their ranks
  stats::Table<double> loss_left;   // that loss over that of the pattern without a full layer
  stats::Table<double> nll;         // nats per token
  // Means over models: (rules), then (rules * rules) of the first less the second.
  std::vector<stats::Estimate> mean_rank{}, mean_loss_left{};
  std::vector<stats::Estimate> rank_difference{}, nll_difference{};
};

struct RuleRanks {
  std::vector<RankedModel> models;
  std::vector<std::string> rules;
  std::vector<RankedBudget> budgets;  // those that a model has

  bool is_empty() const { return budgets.empty(); }
};

// Returns the rules that are compared at a budget, the best mean rank first.
std::vector<std::size_t> by_mean_rank(const RankedBudget& budget);

// Returns the rule behind a pattern of an evaluation: "nll" of "nll:3", "random" of "random:7:3", "nll tail" of
// "nll:3 tail.json", which is a second selection of that name; "" for full, windowed and lists of layers.
std::string rule_of(const std::string& pattern);

// Ranks the rules of the evaluations among these cells; of rows that differ in the seed only the first counts.
RuleRanks rank_rules(const std::vector<CollectedCell>& cells);

}  // namespace winnow::campaign
