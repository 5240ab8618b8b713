// The rows of option_table.h that say what is measured: windows, patterns, signals, and the steps of a search.
#pragma once

#include <vector>

#include "pipeline/run/options/option.h"

namespace winnow::run {

// Words and verbs of many rows.
inline constexpr const char* kTokens = "tokens";
inline const std::vector<Verb> kCalibrate = {Verb::kCalibrate};
inline const std::vector<Verb> kOfSearch = {Verb::kSearch};
inline const std::vector<Verb> kEvaluate = {Verb::kEvaluate};
inline const std::vector<Verb> kCalibrateAndSearch = {Verb::kCalibrate, Verb::kSearch};
inline const std::vector<Verb> kCalibrateAndEvaluate = {Verb::kCalibrate, Verb::kEvaluate};

// Return the options of one heading of the help, in its order.
std::vector<Option> search_options();
std::vector<Option> plan_options();
std::vector<Option> window_options();
std::vector<Option> pattern_options();
std::vector<Option> signal_options();

}  // namespace winnow::run
