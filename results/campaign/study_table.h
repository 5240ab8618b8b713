// A study as text: for the terminal, and as JSON for machines.
#pragma once

#include <string>

#include "base/json_values.h"
#include "results/campaign/study.h"

namespace winnow::campaign {

// Returns a block for each part that there is, "" for none. Ends with a newline.
std::string study_text(const Study& study);
// Returns the same with every figure; null for an empty study.
Json study_object(const Study& study);

}  // namespace winnow::campaign
