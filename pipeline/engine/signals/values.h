// Figures of the signals of one layer, and their places among the numbers of a cell.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/engine/signals/options.h"

namespace winnow::engine {

// Values by measured variable (base/signal_specs.h): one, or one a key head.
using SignalValues = std::map<std::string, std::vector<double>, std::less<>>;
// Returns the value of a variable that has only one; NaN where it was not measured.
double value_of(const SignalValues& values, std::string_view variable);

// Numbers of a cell for signals, one variable after another.
struct SignalLayout {
  struct Column {
    std::string variable;
    int64_t width = 1;
  };
  int64_t n_kv_heads = 0;
  std::vector<Column> columns = {};

  SignalLayout() = default;
  // Lists the measured variables of the signals that are wanted, in the order of the list.
  SignalLayout(const SignalOptions& options, int64_t key_heads);

  int64_t size() const;
  // Fills the numbers of a cell: NaN for a variable that the values lack, 0.0 for -0.0.
  void put(const SignalValues& values, std::span<double> slots) const;
  SignalValues get(std::span<const double> slots) const;
};

}  // namespace winnow::engine
