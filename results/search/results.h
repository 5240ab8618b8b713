// Results of a search, as /selection/METHOD of results.h5 holds them: figures of every pattern it measured, the best of
// each K, how well screened and exact figures agree, interactions of pairs. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/calibration/results.h"
#include "results/calibration/statistics.h"
#include "results/search/search.h"

namespace winnow::search {

// Figures by example; NLL and KL in nats per token.
struct ExampleFigures {
  std::vector<double> nll;
  std::vector<uint8_t> exact_match;
  std::vector<double> token_accuracy;
  std::vector<double> kl;  // empty where it was not measured

  bool empty() const { return nll.empty(); }
  PatternMeans means() const;
};

struct MeasuredPattern {
  std::string name;  // "full", "windowed", "list:1,4"
  std::vector<bool> windowed;
  ExampleFigures screened;  // as the search was told to measure
  ExampleFigures verified;  // every row obeys the window, of the first examples; empty where it was not measured
};

// Agreement of the search's figures with exact ones, over the patterns that have both.
struct ScreeningAgreement {
  int64_t n_verified = 0;
  stats::Estimate rho_nll;          // Spearman's rho between the mean NLLs
  stats::Estimate rho_exact_match;  // the same of exact match
  // Share of the pairs of a K's best pattern and a verified one of the same K in which the best one's exact objective
  // is as good or better.
  stats::Figure wins_kept;
};

// Tables are (candidates, candidates), symmetric; 0 on the diagonal.
struct Interactions {
  std::vector<double> delta_nll;         // (n_layers): NLL with that layer windowed alone less NLL with all full
  std::vector<double> exact_match_drop;  // (n_layers): exact match with all full less with that layer windowed alone
  std::vector<int64_t> candidates;
  stats::Table<double> delta_nll_pair;  // both windowed, less all full
  // Delta of both less the deltas of each: above 0 they hurt more together than apart.
  stats::Table<double> interaction_nll, interaction_nll_ci_low, interaction_nll_ci_high;
  stats::Table<double> interaction_exact_match;  // the same of the drops
  std::string spread_status;                     // why the intervals are NaN; empty where they are not
};

// Seconds, 0 where they are unknown.
struct SearchCost {
  double predicted = 0.0;               // for the whole search
  double predicted_exact = 0.0;         // for the same search with every row under the window
  double predicted_verification = 0.0;  // besides; 0 where there is none
  double measured = 0.0;                // that the runs took which measured
};

struct SearchResults {
  SearchPlan plan;
  int64_t n_rejected = -1;  // rejected patterns that were to be verified besides the best of each K; -1: none at all
  int64_t n_verified_examples = 0;  // the first so many serve for that
  SearchCost cost;
  std::vector<std::string> example_id;
  std::vector<std::string> token_hash;    // (examples), of their tokens
  std::vector<MeasuredPattern> patterns;  // greedy: by step, best first; pairs: full, single layers, pairs
  std::vector<int64_t> best;              // greedy: of patterns, by K, rising
  ScreeningAgreement agreement;
  Interactions interactions;  // of pairs
};

// The best pattern of each K that a search found; of pairs there are none.
struct BestPatterns {
  std::vector<int64_t> keep;                      // (steps), K, rising
  std::vector<std::vector<int64_t>> full_layers;  // (steps), rising
  int64_t n_examples = 0;
  bool is_verified = false;               // measured again with every row under the window
  std::vector<std::string> token_hash{};  // (examples); empty in a file that is older than it
};

// Outcome of one search in a file, without its figures.
struct FoundPatterns {
  std::string method;
  std::string objective;
  int64_t n_patterns = 0;                           // that were measured
  std::vector<std::vector<int64_t>> full_layers{};  // of BestPatterns
  std::vector<PatternMeans> best{};                 // of these patterns, as the search measured them; no KL
};

}  // namespace winnow::search
