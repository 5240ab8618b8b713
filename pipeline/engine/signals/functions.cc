#include "pipeline/engine/signals/functions.h"

#include <algorithm>

namespace winnow::engine {

// Its lanes are the sweep's (pipeline/engine/sweep_pass.cc): the signal is the score of the one without the layer's
// attention.
std::string sensitivity_parameters(const SignalOptions& options) {
  return options.removed_rows == SignalOptions::kAllRows ? "all" : std::to_string(options.removed_rows);
}

const SignalFunction* find_signal_function(std::string_view name) {
  const auto* found = std::ranges::find(kSignalFunctions, name, &SignalFunction::name);
  return found == kSignalFunctions.end() ? nullptr : found;
}

bool measures_layers(const SignalOptions& options) {
  return std::ranges::any_of(kSignalFunctions, [&](const SignalFunction& function) {
    return function.measure != nullptr && options.wants(function.name);
  });
}

std::vector<SignalFinish> measure_signals(const LayerState& state, const SignalOptions& options) {
  std::vector<SignalFinish> finishes;
  for (const SignalFunction& function : kSignalFunctions) {
    if (function.measure == nullptr || !options.wants(function.name)) continue;
    finishes.push_back(function.measure(state, options));
  }
  return finishes;
}

int64_t first_signal_row(const SignalOptions& options, int64_t n_tokens, int64_t answer_start) {
  int64_t first = answer_start - 1;
  for (const SignalFunction& function : kSignalFunctions) {
    if (function.first_row == nullptr || !options.wants(function.name)) continue;
    first = std::min(first, function.first_row(options, n_tokens));
  }
  return first;
}

int64_t signal_queries(const SignalOptions& options, int64_t n_tokens, int64_t answer_start) {
  int64_t n_queries = 0;
  for (const SignalFunction& function : kSignalFunctions) {
    if (function.n_queries == nullptr || !options.wants(function.name)) continue;
    n_queries += function.n_queries(options, n_tokens, answer_start);
  }
  return n_queries;
}

}  // namespace winnow::engine
