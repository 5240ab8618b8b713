// What a search for plans found: every plan that was measured, and for each budget the best one beside the one that
// adds up least. /selection/plan of results.h5 holds it. Plain data, and its statistics.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/plan/planner.h"
#include "results/plan/refinement.h"
#include "results/search/results.h"

namespace winnow::plan {

// A mean over examples with its 95 % percentile bootstrap interval, whose ends are NaN for one example; nats per token.
struct MeanLoss {
  double value = 0.0;
  double ci_low = 0.0, ci_high = 0.0;
};

struct SearchedPlan {
  std::vector<int64_t> windows;     // (n_layers), keys that a layer sees, 0: all
  std::vector<KvType> kv;           // (n_layers), types of keys and values; empty: all as computed
  double bytes = 0.0;               // as the engine allocates them; infinite where it does not run the plan
  double predicted = 0.0;           // sum over layers of what each loses alone, mean over the searched examples
  search::ExampleFigures figures;   // as the search measured them
  search::ExampleFigures verified;  // every row obeys the window, of the first examples; empty: not measured
};

// Losses of one plan, all above full attention over the same examples.
struct PlanLosses {
  MeanLoss predicted;  // the sum of layers
  MeanLoss measured;   // as the search measured it
  MeanLoss beyond;     // measured less predicted, paired: above 0 the layers lose more together than alone
  bool is_verified = false;
  MeanLoss verified;  // with every row under the window
};

struct SearchedBudget {
  std::string text;  // as given
  double bytes = 0.0;
  int64_t sum_of_layers = 0;  // of SearchedPlans::plans
  int64_t searched = 0;       // that was best as searched
  int64_t best = 0;           // confirmed_plan()
  int64_t steps = 0;
  bool is_settled = false;
  Turnover from_smaller;  // of the best plan, from that of the next smaller budget; of the smallest none
  PlanLosses losses_of_sum, losses_of_best;
};

struct SearchedPlans {
  std::string engine;
  int64_t max_seq_len = 0;
  int64_t concurrency = 1;
  double full_bytes = 0.0;
  int64_t n_layers = 0;
  int64_t beam = 1;
  int64_t steps = 0;                // that a budget could take
  std::string calibration;          // its results file
  std::vector<SearchedPlan> plans;  // measured on all examples, in that order; the first has full attention everywhere
  int64_t n_dropped = 0;            // further plans, measured on the first examples only
  std::vector<SearchedBudget> budgets;  // rising
  int64_t n_turned = 0;                 // layers that keep less anywhere from the least budget to the greatest
  int64_t n_free = 0;                   // layers that plans decide on
  std::vector<std::string> example_id, token_hash;  // (examples)
  int64_t n_verified_examples = 0;                  // the first so many serve for verification
  int64_t n_verified = 0;                           // plans that were
  stats::Estimate rho_predicted;                    // Spearman's rho over all plans between predicted and measured loss
  stats::Estimate rho_verified;                     // the same between measured and verified NLL, over verified plans
  search::SearchCost cost;
};

// Computes the losses of one plan. by_example: the sum of layers of each searched example.
PlanLosses losses_of(const SearchedPlans& found, const SearchedPlan& plan, const std::vector<double>& by_example,
                     uint64_t seed);
// Computes rho_predicted and rho_verified. predicted (plans, examples): the sums of layers.
void correlate(SearchedPlans& found, const stats::Table<double>& predicted, uint64_t seed);
// Chooses the plans that are verified: those of every budget, both, and n_rejected of the others, drawn. Returns
// indices, rising; never that of full attention, whose figures come along.
std::vector<int64_t> choose_verified_plans(const Refinement& found, int64_t n_rejected, uint64_t seed);

// Returns the plan of a budget that is to be served: the best one as searched, unless both it and the plan that adds up
// least were verified, and it loses no less with every row under the window. Tail rows tell plans apart for less than
// the whole window costs, and least so where it costs most.
int64_t confirmed_plan(const SearchedPlans& found, const RefinedBudget& budget);

// Returns the best plan of a budget as a selection, which evaluate and export read. `provenance` and `origin`: of the
// results file.
selection::Selection selection_of(const SearchedPlans& found, const SearchedBudget& budget,
                                  const storage::Provenance& provenance, const std::string& origin);

}  // namespace winnow::plan
