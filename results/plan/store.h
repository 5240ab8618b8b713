// Writes and reads the results file of a search for plans.
#pragma once

#include <filesystem>
#include <optional>

#include "results/plan/searched_plans.h"

namespace winnow::plan {

// Writes RUN_DIR/results.h5 with the group /selection/plan, whole or not at all. Throws as write_results does.
void write_searched_plans(const std::filesystem::path& path, const SearchedPlans& found,
                          const storage::Provenance& provenance);
// Reads what the budgets have, the windows and bytes of all plans without their figures, and /provenance of the file;
// none where it holds no search for plans. Throws Error(kNoInput | kBadData | kIoError).
std::optional<SearchedPlans> read_searched_plans(const std::filesystem::path& path, storage::Provenance& provenance);

}  // namespace winnow::plan
