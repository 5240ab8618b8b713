// Plans as text for the terminal, and as JSON for machines.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json_values.h"
#include "results/plan/searched_plans.h"

namespace winnow::plan {

// Returns "4 full, 8 x 512 fp8": the windows of a plan, widest first, with the types of keys and values that are not as
// computed. `kv` is (n_layers) or empty.
std::string windows_text(const std::vector<int64_t>& windows, const std::vector<KvType>& kv);
// Returns the keys of each layer, null for full attention.
Json windows_json(const std::vector<int64_t>& windows);

// Returns the plans of these budgets, indices, with what was predicted and measured of each: a text that ends with a
// newline.
std::string budgets_table(const SearchedPlans& found, const std::vector<std::size_t>& budgets);
// Returns what the columns are, and what the losses say together, a text that ends with a newline.
std::string legend(const SearchedPlans& found);
// Returns a budget with its plans: keys are added to, never renamed.
Json budget_json(const SearchedPlans& found, const SearchedBudget& budget);

// Return what winnow search prints for a finished search.
std::string to_table(const SearchedPlans& found, const storage::Provenance& provenance);
std::string to_json(const SearchedPlans& found, const storage::Provenance& provenance);

}  // namespace winnow::plan
