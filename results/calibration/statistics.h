// Statistics of a run; README.md in this folder has every definition. They depend on the measured tables and the
// options only, bit for bit: not on threads, ranks or the standard library.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "results/calibration/measurement.h"
#include "results/stats/figure.h"
#include "results/stats/table.h"

namespace winnow::calibration {

struct StatisticsOptions {
  uint64_t seed = 0;
  int64_t top_k = 0;  // layers that keep full attention, <= measured layers; 0: max(1, floor(layers / 4))
  int64_t n_resamples = 10000;
  int64_t n_permutations = 10000;
  int64_t n_splits = 1000;
};

// Figures of each layer, in the order of the measurement's columns.
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
  // Means over the examples that have a value, by ranked variable of the signals that were measured
  // (base/signal_specs.h); NaN: none has.
  std::map<std::string, std::vector<double>, std::less<>> signal_means;
  std::vector<int64_t> budget;   // (budgets), K, rising
  stats::Table<double> p_top_k;  // (budgets, layers): share of resamples with the layer among the top K
  // Why standard_error, ci_*, rank_low, rank_high and p_top_k are NaN (one example); empty where they are not.
  std::string spread_status;

  // Returns the columns in order of rank: order()[0] is the column of rank 1.
  std::vector<int64_t> order() const;
};

// Comparison with one control set of short prompts, which shows whether a layer's delta is about long context at all.
struct Deconfounding {
  stats::Estimate spearman_rho;   // between the two sets' mean deltas, over layers
  stats::Figure spearman_p;       // two-sided, permutations of layers
  int64_t n_paired = 0;           // examples that both sets hold, by example_id: resampled together
  int64_t top_k = 0;              // K
  stats::Figure overlap;          // layers that both top K hold
  stats::Figure jaccard;          // overlap / union
  stats::Figure magnitude_ratio;  // mean over layers of |mean delta|, calibration / control
};

struct Reliability {
  stats::Estimate split_half;          // of the ranking, Spearman-Brown corrected; interval = spread over the splits
  stats::Estimate rho_exact_match;     // Spearman over layers of mean delta NLL with exact_match_drop
  stats::Estimate rho_token_accuracy;  // the same with token_accuracy_drop
};

// Agreement of the signals, over layers. All are taken so that large means "keep full attention".
struct SignalComparison {
  std::vector<std::string> signal;  // nll, exact-match, token-accuracy, then those measured of base/signal_specs.h
  std::vector<int64_t> layer;
  stats::Table<double> value;  // (signals, layers), means over examples, of 1 less the variable where small values keep
  stats::Table<double> rho, rho_ci_low,
      rho_ci_high;         // (signals, signals), Spearman's rho over layers; NaN: not defined
  std::string rho_status;  // why some are not, empty where all are
  // Spearman's partial rho over layers of the mean delta NLL with a drop, given generic sensitivity.
  stats::Estimate partial_rho_exact_match;
  stats::Estimate partial_rho_accuracy;
  int64_t top_k = 0;  // K of transfer
  // (signals): the top K by the signal on one half of the examples, judged on the other: their mean delta NLL over that
  // of the other half's own top K. Mean over random halves and the middle 95 % of them.
  std::vector<double> transfer, transfer_low, transfer_high;
  std::vector<double> transfer_overlap;  // (signals): share of the K that both halves choose by the signal
  std::string transfer_status;           // why some are NaN, empty where none is
};

// Figures of key heads that were windowed alone. A head's number is its layer times the heads of a layer, plus its own.
struct HeadStatistics {
  int64_t n_heads = 0;  // of a layer
  Ranking ranking;      // of the heads of all measured layers, with their numbers in the place of layers
  // (measured layers), nats per token: the sum of the mean deltas of a layer's heads, and the largest of them.
  std::vector<double> layer_sum, layer_largest;
  // Spearman over layers of the mean delta NLL of the whole layer with layer_sum and with layer_largest.
  stats::Estimate rho_sum, rho_largest;
};

struct Statistics {
  StatisticsOptions options;  // as used: top_k is never 0
  Ranking ranking;
  std::map<std::string, Deconfounding> deconfounding;  // by control
  Reliability reliability;
  std::optional<SignalComparison> signals;  // where a signal besides NLL and matches was measured
  std::optional<HeadStatistics> heads;      // where key heads were measured alone
};

// Returns K = max(1, floor(n_layers / divisor)).
int64_t budget_of(int64_t n_layers, int64_t divisor);

// Returns L/8, L/4, L/2 and top_k, rising, each once; top_k of 0 is L/4.
std::vector<int64_t> budgets(int64_t n_layers, int64_t top_k);
// Ranks columns of measured figures under these numbers, which stand for layers and decide ties; signals apart.
Ranking rank_columns(const std::vector<int64_t>& numbers, const Columns& columns, const StatisticsOptions& options);

// Computes all statistics. Throws Error(kBadData) for an empty or inconsistent table, a value that is not finite
// (naming set, example and layer) or a control measured on other layers, Error(kUsage) for options out of range.
Statistics compute_statistics(const Measurement& calibration, const std::map<std::string, Measurement>& controls,
                              const StatisticsOptions& options);

}  // namespace winnow::calibration
