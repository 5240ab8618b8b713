// The figures that a run measured, in memory: the contents of /calibration or of one /control/NAME. Plain data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/kv_type.h"
#include "results/stats/table.h"

namespace winnow::calibration {

// Figures of every window that the layers were measured under, where there were several. The run's own, whose figures
// are those of Measurement itself too, is among them. Tables are (examples * layers, windows).
struct FiguresByWindow {
  std::vector<int64_t> window;  // (windows), tokens as given, rising; empty where there was one
  stats::Table<double> nll;     // nats per token, with that layer alone windowed
  stats::Table<uint8_t> exact_match;
  stats::Table<double> token_accuracy;

  int64_t n_windows() const { return static_cast<int64_t>(window.size()); }
};

// Figures of every key head windowed alone, all else with full attention. Tables are (examples * layers, heads).
struct FiguresByHead {
  int64_t n_heads = 0;       // of a layer, key heads; 0: they were not measured
  stats::Table<double> nll;  // nats per token
  stats::Table<uint8_t> exact_match;
  stats::Table<double> token_accuracy;
};

// The same of every setting that the layers were measured under, where they were measured in types of keys and values
// besides the model's own: a window, or full attention, in a type. Full attention in the model's own is the base.
// Tables are (examples * layers, settings).
struct FiguresBySetting {
  std::vector<int64_t> window;  // (settings), tokens as given, 0: full attention
  std::vector<KvType> kv;       // (settings)
  stats::Table<double> nll;     // nats per token, with that layer alone under the setting
  stats::Table<uint8_t> exact_match;
  stats::Table<double> token_accuracy;

  int64_t n_settings() const { return static_cast<int64_t>(window.size()); }
  // Returns its setting_name().
  std::string name(int64_t setting) const;
};
// Exact match of a cell that was not measured.
inline constexpr uint8_t kNotMeasured = 255;

// One set of examples under the base and under every variant "layer l windowed against full, all else as in the base".
struct Measurement {
  std::vector<std::string> example_id;       // (examples)
  std::vector<std::string> source;           // (examples), empty when the calibration file has none
  std::vector<std::string> token_hash;       // (examples), of their tokens; empty in a file that is older than it
  std::vector<int64_t> answer_tokens;        // (examples)
  std::vector<int64_t> prompt_tokens;        // (examples)
  std::vector<int64_t> layer;                // (layers): layer index of each column
  std::vector<bool> layer_windowed_in_base;  // (layers)
  // First examples that each layer was measured on, (layers); empty: all. Cells beyond are NaN, and kNotMeasured.
  std::vector<int64_t> layer_examples;

  std::vector<double> nll_base;             // (examples), nats per token
  std::vector<uint8_t> exact_match_base;    // (examples)
  std::vector<double> token_accuracy_base;  // (examples)
  // Figures of the pattern that differs from the base in that one layer, (examples, layers).
  stats::Table<double> nll;
  stats::Table<uint8_t> exact_match;
  stats::Table<double> token_accuracy;
  // NLLs of tokens with --per-token, else empty: (examples, answer_token) and (examples * layers, answer_token),
  // NaN-padded.
  stats::Table<float> token_nll_base;
  stats::Table<float> token_nll;

  FiguresByWindow by_window;
  FiguresByHead by_head;
  FiguresBySetting by_setting;

  // Signals that were measured, by variable of base/signal_specs.h: (examples, layers), or (examples * layers, key
  // heads).
  std::map<std::string, stats::Table<double>, std::less<>> signals;

  int64_t n_examples() const { return static_cast<int64_t>(example_id.size()); }
  int64_t n_layers() const { return static_cast<int64_t>(layer.size()); }
  // Returns true if the layer of a column was measured on that example.
  bool is_measured(int64_t example, int64_t column) const {
    return layer_examples.empty() || example < layer_examples[static_cast<std::size_t>(column)];
  }
  // Returns the number of first examples that every layer was measured on.
  int64_t n_shared_examples() const {
    return layer_examples.empty() ? n_examples() : *std::ranges::min_element(layer_examples);
  }
  // Returns NLL(layer windowed) - NLL(layer full), nats per token: nll - nll_base where the base has the layer full,
  // the negative where the base has it windowed, so that large always means "keep full attention". -0.0 becomes 0.0.
  double delta_nll(int64_t example, int64_t column) const {
    const double difference = nll(example, column) - nll_base[static_cast<std::size_t>(example)];
    return (layer_windowed_in_base[static_cast<std::size_t>(column)] ? -difference : difference) + 0.0;
  }
  // Returns NLL(layer with that window) - NLL(base, in which it has full attention), nats per token.
  double delta_nll_by_window(int64_t example, int64_t column, int64_t window) const {
    return by_window.nll(example * n_layers() + column, window) - nll_base[static_cast<std::size_t>(example)] + 0.0;
  }
  // Returns NLL(that head of the layer windowed) - NLL(base, in which it has full attention), nats per token.
  double delta_nll_by_head(int64_t example, int64_t column, int64_t head) const {
    return by_head.nll(example * n_layers() + column, head) - nll_base[static_cast<std::size_t>(example)] + 0.0;
  }
  // Returns NLL(layer under that setting) - NLL(base), nats per token.
  double delta_nll_by_setting(int64_t example, int64_t column, int64_t setting) const {
    return by_setting.nll(example * n_layers() + column, setting) - nll_base[static_cast<std::size_t>(example)] + 0.0;
  }
  // Returns null where it was not measured.
  const stats::Table<double>* find_signal(std::string_view variable) const;
};

// The three columns that layers are always compared by, (examples, layers), all with large = keep full attention.
struct Columns {
  stats::Table<double> delta_nll;
  stats::Table<double> exact_match_drop;
  stats::Table<double> token_accuracy_drop;
};
Columns columns_of(const Measurement& measurement);

// Returns the measurement of the first n_examples alone, which every layer must have.
Measurement first_examples(const Measurement& measurement, int64_t n_examples);

// Returns the mean over its examples of Measurement::delta_nll_by_window() of a layer's column; (windows).
std::vector<double> mean_delta_nll_by_window(const Measurement& measurement, int64_t column);
// Returns the same of Measurement::delta_nll_by_setting(); (settings).
std::vector<double> mean_delta_nll_by_setting(const Measurement& measurement, int64_t column);

// Refuses a measurement without examples or layers, with tables that do not fit together, or with a value that is not
// finite where the layer was measured, or not NaN where it was not: Error(kBadData) naming the set, the variable,
// example and layer.
void check_measurement(const Measurement& measurement, const std::string& name);

}  // namespace winnow::calibration
