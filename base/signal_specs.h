// The list of signals: what a calibration can measure of a layer besides NLL and matches. Whatever stores, ranks,
// compares, selects by or prints signals goes through it; how each is computed is in pipeline/engine/signals.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace winnow {

// Axes of a variable. A cell is an example with one layer switched.
enum class SignalAxes { kCell, kCellByKvHead };

// Source of a variable's values.
enum class SignalSource {
  kMeasured,     // the signal's function, or the sweep's scores of lanes without the layer's attention
  kScored,       // the KL that every score of a pattern has
  kMeanOfHeads,  // mean over key heads of the variable `from`
  kLessBase,     // the variable `from`, an NLL, less the NLL under the base
};

// One variable of /calibration and /control/NAME.
struct SignalVariable {
  const char* name;
  const char* units;
  const char* long_name;
  SignalAxes axes = SignalAxes::kCell;
  SignalSource source = SignalSource::kMeasured;
  const char* from = "";
  // Why an example may have no value, which is NaN then; "": every example has one.
  const char* lacking = "";
};

// Says whether large or small values of the ranked variable mean that a layer keeps full attention. With kSmallKeeps, 1
// less the variable is compared.
enum class SignalOrientation { kLargeKeeps, kSmallKeeps };

// Things that a sweep must carry for a signal.
struct SignalNeeds {
  bool distributions = false;  // the base's distributions over the vocabulary, which each pattern's are compared with
  bool removed_lane = false;   // for each layer a lane without its attention
  bool last_token = false;     // a row for the last token, which predicts nothing
  bool hidden_states = false;  // memory for rows of the residual stream
};

struct SignalSpec {
  const char* name;  // as --signals, --method and /signals have it
  const char* flag;  // what the help of --signals says of it
  std::vector<SignalVariable> variables;
  const char* ranked;  // the variable whose mean over examples ranks the layers: mean_RANKED of /ranking
  SignalOrientation orientation = SignalOrientation::kLargeKeeps;
  const char* score = "";  // what `winnow select --method NAME` calls its score, with the unit; "": no such method
  SignalNeeds needs = {};

  const SignalVariable& ranked_variable() const;
};

// Returns all signals in the order in which they are listed, stored and named.
std::span<const SignalSpec> signal_specs();
// Returns null where there is no signal of that name.
const SignalSpec* find_signal_spec(std::string_view name);

}  // namespace winnow
