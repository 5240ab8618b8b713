// What a sweep can measure of a single layer beside the pattern that has it switched: how much the model needs the
// layer's attention at all, and where that attention goes. All of it under the base.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace winnow::engine {

// LightTransfer's lazy ratio: the share of the last queries' attention that stays on sinks and recent keys.
struct LazyWindow {
  int64_t sinks = 4;      // first keys of the sequence
  int64_t recent = 1024;  // keys
  int64_t last = 32;      // queries
  // Shorter sequences have no ratio, as in SWAA's script.
  int64_t least_tokens() const { return sinks + recent + 10; }
};

struct LayerSignalOptions {
  // The layer's attention output is removed from this many rows before the answer on; kAllRows: from row 0 on.
  static constexpr int64_t kAllRows = kernels::kNoLimit;
  std::optional<int64_t> removed_rows;
  bool mass = false;
  std::optional<LazyWindow> lazy;
  bool any() const { return removed_rows.has_value() || mass || lazy.has_value(); }
};

// Everything that a calibration measures besides NLL and matches.
struct Signals {
  bool kl = false;  // KL(p_base || p_variant) of the answer tokens
  LayerSignalOptions layer;
  // What names it in a run's identity: "" for none, else such as "kl,sensitivity:32,mass,lazy:4:1024:32".
  std::string name() const;
};

struct LayerSignals {
  double nll_removed = 0.0;  // mean NLL of the answer with the layer's attention output removed, nats per token
  // Share of attention on keys beyond window and sinks, mean over the rows that predict the answer and over the query
  // heads of a key head; (n_kv_heads).
  std::vector<double> mass_outside;
  // Mean over heads and the last queries; NaN for a sequence that is too short. Each query's recent keys are those
  // before it, or, in the second, the last ones of the sequence for all of them, also those that a query does not see.
  double lazy_ratio = std::numeric_limits<double>::quiet_NaN();
  double lazy_ratio_compat = std::numeric_limits<double>::quiet_NaN();
};

// The numbers of LayerSignals one after another, as tables of cells and shards hold them: 3 and one a key head, or none
// where no signal is wanted.
int64_t signal_slots(const LayerSignalOptions& options, int64_t n_kv_heads);
std::vector<double> to_slots(const LayerSignals& signals, int64_t n_slots);
LayerSignals from_slots(std::span<const double> slots);

// A sequence's queries and keys in one layer.
struct LayerAttention {
  const void* q = nullptr;  // from row first_row on, after RoPE
  int64_t first_row = 0;
  kernels::KvRows keys;  // from row 0 on
  int64_t n_tokens = 0;  // T: the last one, which predicts nothing, has a row where a lazy ratio is wanted
  int64_t answer_start = 0;
};

// Fills mass_outside and the lazy ratios, as `options` wants them.
void measure_attention(kernels::Backend& backend, const kernels::HeadShape& heads, const LayerAttention& attention,
                       const kernels::Window& window, const LayerSignalOptions& options, LayerSignals& signals);

}  // namespace winnow::engine
