// Reads what a search for plans needs before it measures: the calibration behind it, the budgets, the model, the data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/run/inputs.h"
#include "results/plan/budget.h"
#include "results/plan/planner.h"
#include "results/plan/refinement.h"
#include "results/selection/select_input.h"

namespace winnow::verbs {

// What is known before anything is measured. It stays where it is: the planner refers to the calibration.
struct PlanQuestion {
  std::filesystem::path results;  // file of the calibration
  selection::SelectInput calibration;
  std::unique_ptr<plan::Planner> planner;
  plan::Planner::Costs costs;
  std::vector<plan::Budget> budgets;  // rising
  plan::RefinementRequest request;    // of these

  // Returns what the layers of a model see under settings of the planner's layers, as runs take it.
  run::Variant variant(const plan::Settings& settings) const;
};

// Refuses --from and what belongs to it where the method is another. Throws Error(kUsage).
void check_plan_options(const run::RunOptions& options);
// Reads the calibration and answers what costs nothing. `options` gets the windows, the sinks, the target and, unless
// it is given, the number of examples of the calibration. Throws Error(kUsage) for a budget below the least plan or
// above full attention, lengths that differ, an engine that does not serve the model, options that contradict the
// calibration; Error(kNoInput | kBadData) for a file that is none.
std::unique_ptr<PlanQuestion> read_plan_question(run::RunOptions& options);
// Reads model and data. Throws Error, also Error(kConfigMismatch) where the calibration was of other examples.
run::Inputs load_plan_search(const run::RunOptions& options, const PlanQuestion& question);
// Throws Error(kConfigMismatch) where the calibration was of another model.
void check_calibrated_model(const PlanQuestion& question, const run::RunIdentity& identity);

}  // namespace winnow::verbs
