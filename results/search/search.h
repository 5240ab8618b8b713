// Joint selection: searches over patterns of layers by their measured figures. Pure functions, which measure through a
// callback.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace winnow::search {

// Figures of a pattern, means over the examples.
struct PatternMeans {
  double nll_nats = 0.0;        // nats per token
  double exact_match = 0.0;     // share of examples
  double token_accuracy = 0.0;  // share of tokens
  double kl_nats = 0.0;         // KL(full || pattern), nats per token; only where it is measured
};

enum class Objective { kNll, kExactMatch, kKl };
// Return "nll", "exact-match" or "kl", and the objective of such a name. parse_objective throws Error(kUsage).
const char* objective_name(Objective objective);
Objective parse_objective(const std::string& name);
std::vector<std::string> objectives();
// Returns the figure that a search minimises: NLL, KL, or -(exact match).
double objective_value(Objective objective, const PatternMeans& means);

// Those of greedy_search() and pair_search(); plans are refined by results/plan/refinement.h.
enum class SearchMethod { kGreedyForward, kGreedyBackward, kPairs, kPlan };
const char* search_method_name(SearchMethod method);
SearchMethod parse_search_method(const std::string& name);  // throws Error(kUsage)
std::vector<std::string> search_methods();

struct SearchPlan {
  SearchMethod method = SearchMethod::kGreedyForward;
  Objective objective = Objective::kNll;
  int64_t n_layers = 0;
  int64_t keep = 0;  // K: greedy-forward ends there, greedy-backward too; pairs: number of candidates
  int64_t beam = 1;  // patterns that each step goes on from
  // (n_layers), true where a layer has a window in every pattern, as the model gives it one; empty: nowhere.
  std::vector<bool> native = {};

  bool is_free(std::size_t layer) const { return native.empty() || !native[layer]; }
  int64_t n_free() const;                  // layers that may have full attention
  std::vector<bool> full_pattern() const;  // all of these have it
  // Returns that pattern with these layers windowed.
  std::vector<bool> with_windows(const std::vector<int64_t>& layers) const;
};

struct ScoredPattern {
  std::vector<bool> windowed;  // (n_layers)
  PatternMeans means;
};

// All patterns with `keep` full layers that the search measured, best first. The first `beam` of them are the parents
// of the next step's.
struct SearchStep {
  int64_t keep = 0;
  std::vector<ScoredPattern> ranked;
};

// Measures patterns and returns their means, in their order; none where the search is to end here. `base` is a pattern
// that most of them differ from in one layer: a sweep from there is cheapest.
using MeasurePatterns = std::function<std::optional<std::vector<PatternMeans>>(
    const std::vector<bool>& base, const std::vector<std::vector<bool>>& patterns)>;

// Searches greedily and returns the steps in their order. Greedy-forward starts from all layers windowed and gives one
// more layer full attention in each step; greedy-backward starts from all full and windows one more. A step measures
// every child of the `beam` best patterns of the step before, each pattern once, and ranks them by objective; where
// that is equal by NLL, and where that is equal too the pattern comes first whose full layers are the lower ones (in
// lexical order). Layers that are not free stay windowed. The first step has one pattern. A beam as wide as all subsets
// finds the best pattern of every K. Where measuring ends, the steps until then are returned.
std::vector<SearchStep> greedy_search(const SearchPlan& plan, const MeasurePatterns& measure);

// Returns the most patterns that a greedy search measures, at most INT64_MAX.
int64_t most_patterns(const SearchPlan& plan);

// Figures of a search for pairs: all layers full, each layer windowed alone, then every two of the candidates together.
struct PairSearch {
  PatternMeans full;
  std::vector<PatternMeans> single;  // (n_layers): that layer windowed alone; full's where it is not free
  std::vector<int64_t> candidates;   // (keep): the layers that cost most alone, in rising order
  // (keep, keep), symmetric: the two together; the diagonal is the layer alone.
  std::vector<PatternMeans> pair;
};
// Measures them in that order. Where measuring ends, what it was asked for last and what follows from it is empty.
PairSearch pair_search(const SearchPlan& plan, const MeasurePatterns& measure);

int64_t count_full(const std::vector<bool>& windowed);

}  // namespace winnow::search
