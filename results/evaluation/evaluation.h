// Figures of whole patterns on a held-out set, and their statistics. Plain data and pure functions of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "results/calibration/measurement.h"
#include "results/calibration/results.h"
#include "results/evaluation/losses.h"
#include "results/evaluation/serving_cost.h"

namespace winnow::evaluation {

// Lengths at which costs are given, tokens.
inline constexpr int64_t kServedLengths[] = {8192, 32768, 131072, 1048576};

inline constexpr int64_t kCostLength = 131072;  // of EvaluationTable::cost()

// Settings of free generation.
struct GenerationSettings {
  int64_t max_new_tokens = 0;        // 0: not at all
  std::vector<int32_t> stop_tokens;  // that end a text
};

// Figures of generated texts. Tables are (patterns, examples), all empty where nothing was generated.
struct GeneratedTable {
  GenerationSettings settings;
  stats::Table<uint8_t> exact_match;  // the text is the answer
  stats::Table<int64_t> tokens;       // of the text, the stop token included
  stats::Table<uint8_t> stopped;      // 1: by a stop token, 0: at max_new_tokens
  stats::Table<int64_t> cache_bytes;  // keys and values that it was written with, as allocated
  // Figures by pattern. Rates are of all texts that one rank writes together; NaN where there was nothing to decode.
  std::vector<double> prefill_rate;     // prompt tokens a second
  std::vector<double> decode_rate;      // new tokens a second
  std::vector<int64_t> texts_together;  // at most

  GeneratedTable() = default;
  GeneratedTable(int64_t n_patterns, int64_t n_examples, GenerationSettings how);
  bool is_empty() const { return exact_match.rows == 0; }
};

// Measured figures. Tables are (patterns, examples).
struct EvaluationTable {
  std::vector<std::string> pattern;      // (patterns), unique: what the command line or a selection calls them
  stats::Table<uint8_t> full_attention;  // (patterns, model layers): 1 where the layer keeps full attention
  // (model layers), keys of the window that a layer has of its own in every pattern, 0: none; empty: no layer has one.
  std::vector<int64_t> native_window;
  // (patterns, model layers), keys that a layer sees, 0: all; empty where no pattern has windows of its own.
  stats::Table<int64_t> window_keys;
  // (patterns * model layers, key heads): 1 where the head keeps full attention; empty where no pattern has windows in
  // some of a layer's heads.
  stats::Table<uint8_t> full_heads{};
  // (patterns, model layers), the KvType of a layer's keys and values; empty where all patterns keep them as computed.
  stats::Table<uint8_t> kv;
  std::vector<std::string> example_id;  // (examples)
  std::vector<std::string> source;      // (examples), empty when the data have none
  std::vector<std::string> token_hash;  // (examples), of their tokens; empty in a file that is older than it
  std::vector<int64_t> answer_tokens;   // (examples)
  std::vector<int64_t> prompt_tokens;   // (examples)
  stats::Table<double> nll;             // nats per token
  stats::Table<uint8_t> exact_match;
  stats::Table<double> token_accuracy;
  stats::Table<double> kl;  // nats per token, of the full model's distributions to the pattern's; or empty
  GeneratedTable generated;

  int64_t n_patterns() const { return static_cast<int64_t>(pattern.size()); }
  int64_t n_examples() const { return static_cast<int64_t>(example_id.size()); }
  int64_t n_layers() const { return full_attention.cols; }
  int64_t n_full_layers(int64_t p) const;
  // Returns the key heads of a layer, or of all layers of a pattern, that keep full attention; of full_heads.
  int64_t n_full_heads(int64_t p, int64_t layer) const;
  int64_t n_full_heads(int64_t p) const;
  // Returns the layers with full attention, in words "3 of 24 layers full"; where single heads have windows, the heads.
  std::string full_text(int64_t p) const;
  // Returns their number alone: layers, or heads in layers' worth, "2.5".
  std::string full_number(int64_t p) const;
  // Returns what tells cheaper patterns from dearer ones: the layers with full attention, or where patterns have
  // windows of their own, the keys that all layers keep of kCostLength tokens; where patterns have types of keys and
  // values, the bits that an element of these keys takes, in all, without scales.
  int64_t cost(int64_t p) const;
  bool has_native_window(int64_t layer) const {
    return !native_window.empty() && native_window[static_cast<std::size_t>(layer)] > 0;
  }
  KvType kv_type(int64_t p, int64_t layer) const {
    return kv.values.empty() ? KvType::kStored : static_cast<KvType>(kv(p, layer));
  }
  // Returns the first pattern in which every layer keeps full attention that has no window of its own, and all layers
  // keep keys and values as computed.
  std::optional<int64_t> full() const;
  std::optional<int64_t> find(const std::string& name) const;
};

struct EvaluationOptions {
  uint64_t seed = 0;
  int64_t n_resamples = 10000;
  std::string baseline;                         // pattern that all are compared with besides full; empty: none
  std::optional<Margin> margin = std::nullopt;  // none: derived from what windowing loses
};

// Means over examples by pattern, each with its 95 % percentile bootstrap interval: NaN where there is one example.
struct PatternFigures {
  std::vector<double> mean, ci_low, ci_high;
};

// Differences of each pattern from a reference, with the same examples drawn for both.
struct Comparison {
  int64_t reference = 0;  // a pattern
  PatternFigures nll;     // nats per token
  PatternFigures exact_match;
  PatternFigures token_accuracy;
  std::vector<double> mcnemar_p;  // of exact match: exact, two-sided
};

struct EvaluationStatistics {
  EvaluationOptions options;
  PatternFigures nll, exact_match, token_accuracy, kl;
  PatternFigures generated_exact_match;  // empty where nothing was generated
  Comparison full;
  std::optional<Comparison> baseline;
  std::optional<Losses> losses;  // none: read from a file that is older than they are
  // 1 where no pattern with as few or fewer layers of full attention is better, and none with fewer is as good.
  std::vector<uint8_t> on_front_exact_match, on_front_nll;
  std::vector<uint8_t> on_front_token_accuracy, on_front_kl;  // empty where losses is none, or KL was not measured
  std::string spread_status;                                  // why the intervals are NaN; empty where they are not
};

// Content of RUN_DIR/results.h5 of an evaluation.
struct EvaluationResults {
  EvaluationTable table;
  ServedModel model;
  ServedWindow window;  // of the layers that a pattern windows
  EvaluationStatistics statistics;
  storage::Provenance provenance;

  // Returns what each layer sees under a pattern; (n_layers).
  std::vector<ServedWindow> windows_of(int64_t pattern) const;
};

// Returns the two-sided p of McNemar's exact test on pairs that differ: of a fair coin, doubled, at most 1; 1 where no
// pair differs. `only_first` pairs are hits of the first alone, `only_second` of the second.
double mcnemar_p(int64_t only_first, int64_t only_second);

// Refuses tables that do not fit together or hold a value that is not finite: Error(kBadData) naming `where`.
void check_evaluation(const EvaluationTable& table, const std::string& where);
// Computes all statistics. Throws Error(kBadData) as check_evaluation does and for a table without the full pattern,
// Error(kUsage) for a baseline that is none of the patterns or resamples out of range.
EvaluationStatistics compute_evaluation(const EvaluationTable& table, const EvaluationOptions& options);
// Throws Error(kUsage) for a --baseline that is none of the patterns.
void require_baseline(const std::string& baseline, const std::vector<std::string>& patterns);

}  // namespace winnow::evaluation
