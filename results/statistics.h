// Statistics of a run (design: README.md in this folder has every definition): pure functions of the measured tables.
// Results depend on the tables and the options only, bit for bit: not on threads, ranks or the standard library.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "results/measurement.h"

namespace winnow {

// A number, or NaN and the reason why it is not defined. Never NaN without a reason.
struct Figure {
  double value = std::numeric_limits<double>::quiet_NaN();
  std::string status = "not computed";

  static Figure of(double value) { return {value, ""}; }
  static Figure undefined(std::string why) { return {std::numeric_limits<double>::quiet_NaN(), std::move(why)}; }
  bool defined() const { return status.empty(); }
};

// A figure with its 95 % interval; the interval may be undefined where the figure is not.
struct Estimate {
  Figure value;
  Figure ci_low;
  Figure ci_high;
};

struct StatisticsOptions {
  uint64_t seed = 0;
  int64_t top_k = 0;  // layers that keep full attention, <= measured layers; 0: max(1, floor(layers / 4))
  int64_t n_resamples = 10000;
  int64_t n_permutations = 10000;
  int64_t n_splits = 1000;
};

// Per layer, in the order of the measurement's columns.
struct Ranking {
  std::vector<int64_t> layer;
  std::vector<double> mean_delta_nll;       // nats per token, over examples
  std::vector<double> median_delta_nll;     // nats per token
  std::vector<double> standard_error;       // nats per token; sample standard deviation / sqrt(examples)
  std::vector<double> ci_low, ci_high;      // nats per token; 95 % percentile bootstrap interval of the mean
  std::vector<int64_t> rank;                // 1 = keep full attention first; by mean, ties by layer index
  std::vector<double> rank_low, rank_high;  // 95 % of the resamples' ranks; whole numbers
  std::vector<double> exact_match_drop;     // mean over examples of exact match (layer full) - (layer windowed)
  std::vector<double> token_accuracy_drop;  // the same of token accuracy
  std::vector<int64_t> budget;              // (budgets), K, rising
  Table<double> p_top_k;                    // (budgets, layers): share of resamples with the layer among the top K
  // Why standard_error, ci_*, rank_low, rank_high and p_top_k are NaN (one example); empty where they are not.
  std::string spread_status;

  // Columns in order of rank: order()[0] is the column of rank 1.
  std::vector<int64_t> order() const;
};

// Against one control set (short prompts): is a layer's delta about long context at all?
struct Deconfounding {
  Estimate spearman_rho;   // between the two sets' mean deltas, over layers
  Figure spearman_p;       // two-sided, permutations of layers
  int64_t n_paired = 0;    // examples that both sets hold, by example_id: resampled together
  int64_t top_k = 0;       // K
  Figure overlap;          // layers that both top K hold
  Figure jaccard;          // overlap / union
  Figure magnitude_ratio;  // mean over layers of |mean delta|, calibration / control
};

struct Reliability {
  Estimate split_half;          // of the ranking, Spearman-Brown corrected; interval = spread over the splits
  Estimate rho_exact_match;     // Spearman over layers of mean delta NLL with exact_match_drop
  Estimate rho_token_accuracy;  // the same with token_accuracy_drop
};

struct Statistics {
  StatisticsOptions options;  // as used: top_k is never 0
  Ranking ranking;
  std::map<std::string, Deconfounding> deconfounding;  // by control
  Reliability reliability;
};

// K = max(1, floor(n_layers / divisor)).
int64_t budget_of(int64_t n_layers, int64_t divisor);

// Computes all of it. Throws Error(kBadData) for an empty or inconsistent table, a value that is not finite (naming
// set, example and layer) or a control measured on other layers, Error(kUsage) for options out of range.
Statistics compute_statistics(const Measurement& calibration, const std::map<std::string, Measurement>& controls,
                              const StatisticsOptions& options);

}  // namespace winnow
