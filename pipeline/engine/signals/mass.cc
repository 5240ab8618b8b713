// Attention mass outside the window: the share of attention on keys beyond window and sinks, mean over the rows that
// predict the answer and over the query heads of a key head.

#include <algorithm>

#include "pipeline/engine/signals/attention_shares.h"

namespace winnow::engine {

SignalFinish measure_mass(const LayerState& state, const SignalOptions& /*options*/) {
  // The window itself, also where tail rows or full decode spare some rows: what it would cost them.
  const kernels::Window everywhere{.keys = state.window.keys, .sinks = state.window.sinks};
  std::vector<kernels::KeySet> sets;
  for (int64_t t = state.answer_start - 1; t < state.n_tokens - 1; ++t) {
    sets.push_back(key_set(0, std::min(state.window.sinks, t + 1), kernels::window_start(everywhere, t)));
    sets.push_back(key_set(0, 0, t + 1));
  }
  const AttentionShares shares(state, state.answer_start - 1, state.n_tokens - 1, sets);
  return [shares](SignalValues& values) { values["attention_mass_outside_kv_head"] = shares.means(0, 1); };
}

int64_t mass_queries(const SignalOptions& /*options*/, int64_t n_tokens, int64_t answer_start) {
  return n_tokens - answer_start;
}

}  // namespace winnow::engine
