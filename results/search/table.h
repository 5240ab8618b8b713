// A search as text for the terminal, and as JSON for machines.
#pragma once

#include <string>

#include "results/search/results.h"

namespace winnow::search {

// Return a search as text for the terminal, which ends with a newline, and as JSON.
std::string to_table(const SearchResults& results, const storage::Provenance& provenance);
std::string to_json(const SearchResults& results, const storage::Provenance& provenance);

}  // namespace winnow::search
