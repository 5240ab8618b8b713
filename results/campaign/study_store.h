// Writes a study into a collection's file.
#pragma once

#include "results/campaign/study.h"
#include "results/storage/hdf5.h"

namespace winnow::campaign {

// Writes /study with a group for each part that there is; nothing for an empty study.
void write_study(storage::Group& root, const Study& study);

}  // namespace winnow::campaign
