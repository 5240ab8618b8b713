#include "base/signal_specs.h"

#include <algorithm>

namespace winnow {

const SignalVariable& SignalSpec::ranked_variable() const {
  return *std::find_if(variables.begin(), variables.end(),
                       [&](const SignalVariable& variable) { return std::string_view(variable.name) == ranked; });
}

std::span<const SignalSpec> signal_specs() {
  constexpr const char* kNats = "nats per token";
  constexpr const char* kOne = "1";
  constexpr const char* kTooShort = "an example of fewer tokens than sinks, recent keys and 10 has none";
  static const std::vector<SignalSpec> kSpecs = {
      {.name = "kl",
       .flag = "KL to the base",
       .variables = {{.name = "kl",
                      .units = kNats,
                      .long_name = "KL of the base's distributions to those with that one layer switched",
                      .source = SignalSource::kScored}},
       .ranked = "kl",
       .score = "mean KL, nats per token",
       .needs = {.distributions = true}},
      {.name = "sensitivity",
       .flag = "NLL without the layer's attention",
       .variables = {{.name = "nll_removed",
                      .units = kNats,
                      .long_name = "mean NLL of the answer without the layer's attention output"},
                     {.name = "delta_nll_removed",
                      .units = kNats,
                      .long_name = "NLL without the layer's attention output less NLL under the base",
                      .source = SignalSource::kLessBase,
                      .from = "nll_removed"}},
       .ranked = "delta_nll_removed",
       .score = "mean delta NLL of removal, nats per token",
       .needs = {.removed_lane = true}},
      {.name = "mass",
       .flag = "attention beyond the window",
       .variables = {{.name = "attention_mass_outside",
                      .units = kOne,
                      .long_name = "share of the answer rows' attention beyond window and sinks",
                      .source = SignalSource::kMeanOfHeads,
                      .from = "attention_mass_outside_kv_head"},
                     {.name = "attention_mass_outside_kv_head",
                      .units = kOne,
                      .long_name = "attention_mass_outside of the query heads that share a key head",
                      .axes = SignalAxes::kCellByKvHead}},
       .ranked = "attention_mass_outside",
       .score = "mean attention mass outside the window"},
      {.name = "lazy",
       .flag = "LightTransfer's ratio",
       .variables = {{.name = "lazy_ratio",
                      .units = kOne,
                      .long_name = "share of the last queries' attention on sinks and recent keys",
                      .lacking = kTooShort},
                     {.name = "lazy_ratio_compat",
                      .units = kOne,
                      .long_name = "the same as SWAA's script forms it: the recent keys are the sequence's last for "
                                   "all queries",
                      .lacking = kTooShort}},
       .ranked = "lazy_ratio",
       .orientation = SignalOrientation::kSmallKeeps,
       .needs = {.last_token = true}},
      {.name = "angular",
       .flag = "angle by which the layer's attention turns the hidden state",
       .variables = {{.name = "angular_distance",
                      .units = kOne,
                      .long_name = "angular distance of the hidden state before and after the layer's attention"}},
       .ranked = "angular_distance",
       .score = "mean angular distance of attention",
       .needs = {.hidden_states = true}},
  };
  return kSpecs;
}

const SignalSpec* find_signal_spec(std::string_view name) {
  for (const SignalSpec& spec : signal_specs()) {
    if (spec.name == name) return &spec;
  }
  return nullptr;
}

}  // namespace winnow
