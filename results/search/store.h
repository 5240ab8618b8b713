// Searches in a results file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "results/search/results.h"

namespace winnow::search {

// RUN_DIR/results.h5 of searches, whole or not at all: a group each. Throws as write_results does.
void write_searches(const std::filesystem::path& path, const std::vector<SearchResults>& searches,
                    const storage::Provenance& provenance);
std::vector<FoundPatterns> read_found(const std::filesystem::path& path, storage::Provenance& provenance);
// Those of one method, and where the file comes from. none: the file has no search of that method.
std::optional<BestPatterns> read_best_patterns(const std::filesystem::path& path, const std::string& method,
                                               storage::Provenance& provenance);
// Whether a results file is one of searches. Throws Error(kNoInput | kBadData | kIoError) where it is no such file.
bool is_search(const std::filesystem::path& path);

}  // namespace winnow::search
