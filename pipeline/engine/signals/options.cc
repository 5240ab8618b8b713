#include "pipeline/engine/signals/options.h"

#include <algorithm>

#include "pipeline/engine/signals/functions.h"

namespace winnow::engine {

bool SignalOptions::needs(bool SignalNeeds::*need) const {
  return std::ranges::any_of(signal_specs(),
                             [&](const SignalSpec& spec) { return wants(spec.name) && spec.needs.*need; });
}

bool SignalOptions::any_of_layers() const {
  return std::ranges::any_of(signal_specs(), [&](const SignalSpec& spec) {
    return wants(spec.name) && std::ranges::any_of(spec.variables, [](const SignalVariable& variable) {
             return variable.source == SignalSource::kMeasured;
           });
  });
}

std::string SignalOptions::name() const {
  std::string text;
  for (const SignalSpec& spec : signal_specs()) {
    if (!wants(spec.name)) continue;
    text += (text.empty() ? "" : ",") + std::string(spec.name);
    const SignalFunction* function = find_signal_function(spec.name);
    if (function != nullptr && function->parameters != nullptr) text += ":" + function->parameters(*this);
  }
  return text;
}

}  // namespace winnow::engine
