// Statistics of searches: the agreement of screened and exact figures, and interactions of pairs of layers.
#pragma once

#include <cstdint>
#include <vector>

#include "results/search/results.h"

namespace winnow::search {

// Chooses the patterns that a search is verified with: the best of every K and n_rejected of the others, drawn. Returns
// indices of patterns, rising. `best`: see SearchResults.
std::vector<int64_t> choose_verified(const std::vector<int64_t>& best, int64_t n_patterns, int64_t n_rejected,
                                     uint64_t seed);
// Computes the agreement, with intervals by 95 % percentile bootstrap over examples, paired.
ScreeningAgreement compute_agreement(const SearchResults& results, uint64_t seed, int64_t n_resamples = 10000);
// Computes the interactions of `candidates`; the patterns must be in the order of pair_search().
Interactions compute_interactions(const SearchResults& results, const std::vector<int64_t>& candidates, uint64_t seed,
                                  int64_t n_resamples = 10000);

}  // namespace winnow::search
