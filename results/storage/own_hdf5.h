// Recognises HDF5 files that winnow wrote, by their content, whatever their names.
#pragma once

#include <filesystem>
#include <string>

#include "base/output_path.h"

namespace winnow::storage {

// Returns true if the file is HDF5 whose root has this attribute `format`; false for what cannot be read.
bool is_own_hdf5(const std::filesystem::path& path, const std::string& format);

// Describes a file of results of one model, for check_outputs().
Output results_output(const std::string& flag, const std::filesystem::path& path);

}  // namespace winnow::storage
