// A checkpoint's config.json as exports and plans need it.
#pragma once

#include <filesystem>

#include "results/serving/request.h"

namespace winnow::commands {

// Reads config.json of a checkpoint's directory. Throws Error(kNoInput) where it is not there, with the advice to give
// --model.
serving::SourceModel source_model(const std::filesystem::path& model);

}  // namespace winnow::commands
