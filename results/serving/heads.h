// Exports of selections of key heads, which no serving engine runs: to the research code that does.
#pragma once

#include <string>
#include <vector>

#include "results/serving/plan.h"

namespace winnow::serving {

// Returns the values of --target that take selections of heads, and those alone.
const std::vector<std::string>& head_targets();
bool is_head_target(const std::string& target);

// Fills in files, command and warnings. Throws Error(kBadData) where the target cannot have the selection.
void plan_head_target(const Request& request, ExportPlan& plan);

// Returns a score in (0, 1) for each head, (n_layers * n_kv_heads): those that keep full attention are above 0.5, and
// heads of either kind are ordered by what windowing them costs. Equal steps, so that any threshold has its heads.
std::vector<double> head_scores(const selection::Selection& selection);

// Returns the share of a prompt of n_tokens that each head drops where 1 % to 99 % of all keys and values are dropped,
// (99, n_layers, n_kv_heads) row-major. Heads get their window in the order of what it costs, the last of them a part
// of it; beyond what all windows drop all heads drop the same.
std::vector<float> head_budget_curve(const selection::Selection& selection, int64_t n_tokens);

}  // namespace winnow::serving
