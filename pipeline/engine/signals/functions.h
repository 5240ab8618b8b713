// The functions that measure the signals of base/signal_specs.h. A new signal is a spec there, a function here, and a
// file of its own in this folder.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/engine/signals/host_results.h"
#include "pipeline/engine/signals/options.h"
#include "pipeline/engine/signals/values.h"

namespace winnow::engine {

// One sequence in one layer under the base: attention is computed, and nothing has been added to its rows yet.
struct LayerState {
  kernels::Ops& ops;
  const model::ModelConfig& config;
  const model::LayerWeights& weights;
  const kernels::Window& window;  // of the layer where it is windowed
  int64_t n_tokens;               // T: the last one, which predicts nothing, has a row where a signal needs it
  int64_t answer_start;           // a
  int64_t first_row;              // of the four below but the keys, a row tile's first
  kernels::ConstRows q;           // (rows, q_dim), after RoPE
  kernels::ConstRows attention;   // (rows, q_dim), before the output projection
  kernels::ConstRows x;           // (rows, hidden), residual rows that enter the layer
  kernels::KvRows keys;           // from row 0 on
  // Room for rows of the residual stream, (n_rows, hidden), so many (a multiple of the row tile) at a time; where a
  // signal needs hidden states.
  kernels::Rows hidden;
  HostResults& results;
};

// Makes the values of a layer out of what the device computed for them: called after Device::synchronize(), when
// nothing of the LayerState is left but its results.
using SignalFinish = std::function<void(SignalValues& values)>;

struct SignalFunction {
  const char* name;  // of its spec
  // Asks the device for what the signal of a layer needs, and waits for nothing; null: the sweep's scores of other
  // lanes are the signal.
  SignalFinish (*measure)(const LayerState& state, const SignalOptions& options) = nullptr;
  // Returns its parameters as a run's identity names them; null: it has none.
  std::string (*parameters)(const SignalOptions& options) = nullptr;
  // Returns the first row that it looks at in a sequence of n_tokens; null: the first that predicts a token of the
  // answer.
  int64_t (*first_row)(const SignalOptions& options, int64_t n_tokens) = nullptr;
  // Returns how many queries it computes the scores of all keys for, for the cost model; null: none.
  int64_t (*n_queries)(const SignalOptions& options, int64_t n_tokens, int64_t answer_start) = nullptr;
};

std::string sensitivity_parameters(const SignalOptions& options);

SignalFinish measure_mass(const LayerState& state, const SignalOptions& options);
int64_t mass_queries(const SignalOptions& options, int64_t n_tokens, int64_t answer_start);

SignalFinish measure_lazy(const LayerState& state, const SignalOptions& options);
std::string lazy_parameters(const SignalOptions& options);
int64_t lazy_first_row(const SignalOptions& options, int64_t n_tokens);
int64_t lazy_queries(const SignalOptions& options, int64_t n_tokens, int64_t answer_start);

SignalFinish measure_angular(const LayerState& state, const SignalOptions& options);

inline constexpr std::array kSignalFunctions = {
    SignalFunction{.name = "sensitivity", .parameters = sensitivity_parameters},
    SignalFunction{.name = "mass", .measure = measure_mass, .n_queries = mass_queries},
    SignalFunction{.name = "lazy",
                   .measure = measure_lazy,
                   .parameters = lazy_parameters,
                   .first_row = lazy_first_row,
                   .n_queries = lazy_queries},
    SignalFunction{.name = "angular", .measure = measure_angular},
};

// Returns null for a signal that is all in the scores.
const SignalFunction* find_signal_function(std::string_view name);
// Returns true if any signal that is wanted has a function that measures layers.
bool measures_layers(const SignalOptions& options);
// Asks for the signals that are wanted of one layer.
std::vector<SignalFinish> measure_signals(const LayerState& state, const SignalOptions& options);
// Returns the first row that any of them looks at.
int64_t first_signal_row(const SignalOptions& options, int64_t n_tokens, int64_t answer_start);
// Returns how many queries they compute the scores of all keys for together, for the cost model.
int64_t signal_queries(const SignalOptions& options, int64_t n_tokens, int64_t answer_start);

}  // namespace winnow::engine
