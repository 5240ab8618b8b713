// Makes the text of a result for stdout.
#pragma once

#include <string>

#include "results/calibration/results.h"

namespace winnow::cli {

// Returns JSON, or the table, whose bars are block characters where the locale of the environment is a UTF-8 one, else
// ASCII.
std::string present_results(const calibration::Results& results, bool as_json);

}  // namespace winnow::cli
