// Writes a collection as an HDF5 file.
#pragma once

#include <filesystem>

#include "results/campaign/study.h"

namespace winnow::campaign {

// Writes the file whole or not at all. Throws Error(kIoError | kCannotCreate), and Error(kInternal) for labels that are
// not unique.
void write_collection(const std::filesystem::path& path, const Collection& collection, const RankAgreement& agreement,
                      const Study& study = {});

}  // namespace winnow::campaign
