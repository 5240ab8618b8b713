// LightTransfer's lazy ratio, mean over heads and the last queries; NaN for a sequence that is too short. Each query's
// recent keys are those before it, or, in the second, the last ones of the sequence for all of them, also those that a
// query does not see.

#include <algorithm>
#include <limits>

#include "pipeline/engine/signals/attention_shares.h"

namespace winnow::engine {

namespace {

// Keys up to row t: the sinks, and the band from `begin` on.
kernels::KeySet sinks_and_band(int64_t sinks, int64_t begin, int64_t t) {
  const int64_t first = std::min(sinks, t + 1);
  return key_set(first, std::max(begin, first), t + 1);
}

}  // namespace

SignalFinish measure_lazy(const LayerState& state, const SignalOptions& options) {
  const LazyWindow& lazy = options.lazy;
  if (state.n_tokens < lazy.least_tokens()) {
    return [](SignalValues& values) {
      values["lazy_ratio"] = values["lazy_ratio_compat"] = {std::numeric_limits<double>::quiet_NaN()};
    };
  }
  const int64_t end = state.n_tokens;
  const int64_t first = lazy_first_row(options, end);
  std::vector<kernels::KeySet> sets;
  for (int64_t t = first; t < end; ++t) {
    sets.push_back(sinks_and_band(lazy.sinks, t - lazy.recent + 1, t));
    sets.push_back(key_set(lazy.sinks, end - lazy.recent, end));
    sets.push_back(key_set(0, 0, t + 1));
  }
  const AttentionShares shares(state, first, end, sets);
  return [shares](SignalValues& values) {
    values["lazy_ratio"] = {shares.mean(0, 2)};
    values["lazy_ratio_compat"] = {shares.mean(1, 2)};
  };
}

std::string lazy_parameters(const SignalOptions& options) {
  return std::to_string(options.lazy.sinks) + ":" + std::to_string(options.lazy.recent) + ":" +
         std::to_string(options.lazy.last);
}

int64_t lazy_first_row(const SignalOptions& options, int64_t n_tokens) {
  return std::max<int64_t>(0, n_tokens - options.lazy.last);
}

int64_t lazy_queries(const SignalOptions& options, int64_t n_tokens, int64_t /*answer_start*/) {
  return n_tokens < options.lazy.least_tokens() ? 0 : std::min(n_tokens, options.lazy.last);
}

}  // namespace winnow::engine
