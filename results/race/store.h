// A race in a results file: the group /race, which results/README.md describes.
#pragma once

#include "results/race/race.h"
#include "results/storage/hdf5.h"

namespace winnow::race {

void write_race(storage::Group group, const RaceRecord& record);
// Throws Error(kBadData) for a group of another form.
RaceRecord read_race(const storage::Group& group);

}  // namespace winnow::race
