// An evaluation as text: for the terminal, and as JSON for machines.
#pragma once

#include <string>

#include "results/evaluation/evaluation.h"

namespace winnow::evaluation {

// Returns a line a pattern, comparisons, costs and the front, for the terminal. Ends with a newline.
std::string to_table(const EvaluationResults& results);
// Returns the same content as one JSON object; figures that are not defined are null.
std::string to_json(const EvaluationResults& results);

}  // namespace winnow::evaluation
