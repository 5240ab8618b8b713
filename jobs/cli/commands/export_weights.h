// The weights of an export whose checkpoint needs other tensors than the one that was measured.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "results/serving/forms.h"

namespace winnow::commands {

// Writes weights and their index to `folder`: links to the files of `model`, copies of those with a renamed tensor, and
// one more file with the new tensors. Returns the names in `model` for which that stands. Throws Error as
// model/safetensors_file.h does.
std::set<std::string> write_weights(const std::filesystem::path& model, const std::filesystem::path& folder,
                                    const serving::WeightChanges& changes);

}  // namespace winnow::commands
