// What a run measured, in memory: the contents of /calibration or of one /control/NAME. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "results/stats/table.h"

namespace winnow::calibration {

// One set of examples under the base and under every variant "layer l windowed against full, all else as in the base".
struct Measurement {
  std::vector<std::string> example_id;       // (examples)
  std::vector<std::string> source;           // (examples), empty when the calibration file has none
  std::vector<int64_t> answer_tokens;        // (examples)
  std::vector<int64_t> prompt_tokens;        // (examples)
  std::vector<int64_t> layer;                // (layers): layer index of each column
  std::vector<bool> layer_windowed_in_base;  // (layers)

  std::vector<double> nll_base;             // (examples), nats per token
  std::vector<uint8_t> exact_match_base;    // (examples)
  std::vector<double> token_accuracy_base;  // (examples)
  // Of the pattern that differs from the base in that one layer, (examples, layers).
  stats::Table<double> nll;
  stats::Table<uint8_t> exact_match;
  stats::Table<double> token_accuracy;
  // With --per-token, else empty: (examples, answer_token) and (examples * layers, answer_token), NaN-padded.
  stats::Table<float> token_nll_base;
  stats::Table<float> token_nll;

  // Signals of a layer, (examples, layers), empty where they were not measured.
  stats::Table<double> kl;                              // nats per token: KL(p_base || p), mean over the answer tokens
  stats::Table<double> nll_removed;                     // nats per token: with the layer's attention output removed
  stats::Table<double> attention_mass_outside;          // share of attention beyond window and sinks
  stats::Table<double> attention_mass_outside_kv_head;  // (examples * layers, key heads)
  // LightTransfer's ratios, clean and as SWAA's script has it; NaN for examples that are too short.
  stats::Table<double> lazy_ratio;
  stats::Table<double> lazy_ratio_compat;

  int64_t n_examples() const { return static_cast<int64_t>(example_id.size()); }
  int64_t n_layers() const { return static_cast<int64_t>(layer.size()); }
  // NLL(layer windowed) - NLL(layer full): nll - nll_base where the base has the layer full, the negative where the
  // base has it windowed, so that large always means "keep full attention". -0.0 is stored as 0.0.
  double delta_nll(int64_t example, int64_t column) const {
    const double difference = nll(example, column) - nll_base[static_cast<std::size_t>(example)];
    return (layer_windowed_in_base[static_cast<std::size_t>(column)] ? -difference : difference) + 0.0;
  }
  // What removing the layer's attention costs.
  double delta_nll_removed(int64_t example, int64_t column) const {
    return nll_removed(example, column) - nll_base[static_cast<std::size_t>(example)] + 0.0;
  }
};

// Refuses a measurement without examples or layers, with tables that do not fit together, or with a value that is not
// finite: Error(kBadData) naming the set, the variable, example and layer.
void check_measurement(const Measurement& measurement, const std::string& name);

}  // namespace winnow::calibration
