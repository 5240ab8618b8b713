// How a verb prints a result on stdout.
#pragma once

#include <string>

#include "results/calibration/results.h"

namespace winnow::cli {

// JSON, or the table; its bars are block characters where the locale of the environment is a UTF-8 one, else ASCII.
std::string present_results(const calibration::Results& results, bool as_json);

}  // namespace winnow::cli
