// Writes and reads the results file of searches.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "results/search/results.h"

namespace winnow::search {

// Writes RUN_DIR/results.h5 of searches, a group each, whole or not at all. Throws as write_results does.
void write_searches(const std::filesystem::path& path, const std::vector<SearchResults>& searches,
                    const storage::Provenance& provenance);
// Reads the outcome of every search, and /provenance of the file. Throws Error(kNoInput | kBadData | kIoError).
std::vector<FoundPatterns> read_found(const std::filesystem::path& path, storage::Provenance& provenance);
// Reads the best patterns of one method, and /provenance of the file; none where it has no search of that method.
// Throws Error(kNoInput | kBadData | kIoError).
std::optional<BestPatterns> read_best_patterns(const std::filesystem::path& path, const std::string& method,
                                               storage::Provenance& provenance);
// Returns true if a results file is one of searches. Throws Error(kNoInput | kBadData | kIoError) where it is not a
// results file.
bool is_search(const std::filesystem::path& path);

}  // namespace winnow::search
