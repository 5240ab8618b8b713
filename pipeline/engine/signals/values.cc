#include "pipeline/engine/signals/values.h"

#include <algorithm>
#include <limits>

namespace winnow::engine {

double value_of(const SignalValues& values, std::string_view variable) {
  const auto found = values.find(variable);
  return found == values.end() ? std::numeric_limits<double>::quiet_NaN() : found->second.front();
}

SignalLayout::SignalLayout(const SignalOptions& options, int64_t key_heads) : n_kv_heads(key_heads) {
  for (const SignalSpec& spec : signal_specs()) {
    if (!options.wants(spec.name)) continue;
    for (const SignalVariable& variable : spec.variables) {
      if (variable.source != SignalSource::kMeasured) continue;
      columns.push_back({variable.name, variable.axes == SignalAxes::kCellByKvHead ? key_heads : 1});
    }
  }
}

int64_t SignalLayout::size() const {
  int64_t size = 0;
  for (const Column& column : columns) size += column.width;
  return size;
}

void SignalLayout::put(const SignalValues& values, std::span<double> slots) const {
  std::ranges::fill(slots, std::numeric_limits<double>::quiet_NaN());
  std::size_t at = 0;
  for (const Column& column : columns) {
    const auto width = static_cast<std::size_t>(column.width);
    const auto found = values.find(column.variable);
    const std::size_t n_there = found == values.end() ? 0 : std::min(width, found->second.size());
    for (std::size_t i = 0; i < n_there; ++i) slots[at + i] = found->second[i] + 0.0;
    at += width;
  }
}

SignalValues SignalLayout::get(std::span<const double> slots) const {
  SignalValues values;
  std::size_t at = 0;
  for (const Column& column : columns) {
    const auto own = slots.subspan(at, static_cast<std::size_t>(column.width));
    values[column.variable].assign(own.begin(), own.end());
    at += own.size();
  }
  return values;
}

}  // namespace winnow::engine
