// How winnow knows an HDF5 file that it wrote itself: by what is in it, whatever its name.
#pragma once

#include <filesystem>
#include <string>

#include "base/output_path.h"

namespace winnow::storage {

// Whether the file is HDF5 whose root has this attribute `format`. False for what cannot be read.
bool is_own_hdf5(const std::filesystem::path& path, const std::string& format);

// A file of results of one model, for check_outputs().
Output results_output(const std::string& flag, const std::filesystem::path& path);

}  // namespace winnow::storage
