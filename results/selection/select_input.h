// Reads what `winnow select` needs of a results file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "results/calibration/results.h"
#include "results/search/results.h"

namespace winnow::selection {

// Figures that a method may look at.
struct SelectInput {
  calibration::Results results;
  std::optional<search::BestPatterns> searched;  // of the method asked for
};

// Reads the results file and what the method needs of it. Throws Error(kNoInput | kBadData) naming file and variable.
SelectInput read_select_input(const std::filesystem::path& path, const std::string& method);

}  // namespace winnow::selection
