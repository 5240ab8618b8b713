// Writes and reads the results file of an evaluation.
#pragma once

#include <filesystem>

#include "results/evaluation/evaluation.h"

namespace winnow::evaluation {

// Write RUN_DIR/results.h5 of an evaluation, whole or not at all, and read it. Throw as write_results and read_results
// do.
void write_evaluation(const std::filesystem::path& path, const EvaluationResults& results);
EvaluationResults read_evaluation(const std::filesystem::path& path);
// Returns true if a results file is an evaluation's. Throws Error(kNoInput | kBadData | kIoError) where it is not a
// results file.
bool is_evaluation(const std::filesystem::path& path);

}  // namespace winnow::evaluation
