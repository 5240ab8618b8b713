// An evaluation in a results file.
#pragma once

#include <filesystem>

#include "results/evaluation/evaluation.h"

namespace winnow::evaluation {

// RUN_DIR/results.h5 of an evaluation: whole or not at all. Throws as write_results and read_results do.
void write_evaluation(const std::filesystem::path& path, const EvaluationResults& results);
EvaluationResults read_evaluation(const std::filesystem::path& path);
// Whether a results file is an evaluation's. Throws Error(kNoInput | kBadData | kIoError) where it is no such file.
bool is_evaluation(const std::filesystem::path& path);

}  // namespace winnow::evaluation
