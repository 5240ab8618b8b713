// The signals of layers (base/signal_specs.h) that are wanted of a sweep, with their parameters.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "base/signal_specs.h"
#include "kernels/ops.h"

namespace winnow::engine {

// LightTransfer's lazy ratio: the share of the last queries' attention that stays on sinks and recent keys.
struct LazyWindow {
  int64_t sinks = 4;      // first keys of the sequence
  int64_t recent = 1024;  // keys
  int64_t last = 32;      // queries
  // Returns the length below which a sequence has no ratio, as in SWAA's script; tokens.
  int64_t least_tokens() const { return sinks + recent + 10; }
};

struct SignalOptions {
  // Value of removed_rows with which the layer's attention output is removed from row 0 on.
  static constexpr int64_t kAllRows = kernels::kNoLimit;

  std::set<std::string, std::less<>> names = {};  // of the signals that are wanted
  int64_t removed_rows = 0;                       // before the answer, of sensitivity
  LazyWindow lazy = {};

  bool wants(std::string_view name) const { return names.contains(name); }
  // Returns true if a signal that is wanted has that need.
  bool needs(bool SignalNeeds::*need) const;
  // Returns true if any of them is measured beside the scores of patterns.
  bool any_of_layers() const;
  // Names them in a run's identity: "" for none, else such as "kl,sensitivity:32,mass,lazy:4:1024:32".
  std::string name() const;
};

}  // namespace winnow::engine
