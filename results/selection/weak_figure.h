// Whether the figure that a rule stands on can tell layers apart.
#pragma once

#include <string>

#include "results/calibration/measurement.h"

namespace winnow::selection {

// Returns what a reader of a choice by "nll", "exact-match" or "token-accuracy" should know where that figure says
// little of these examples: no layer changes it beyond chance, or full attention gives few of the answers. Empty where
// it is fine, for other methods, and for one example.
std::string weak_figure_caveat(const calibration::Measurement& measurement, const std::string& method);

}  // namespace winnow::selection
