// From declared parts of a checkpoint to the tensors that a backend loads.
#pragma once

#include <cstdint>
#include <vector>

#include "model/checkpoint.h"
#include "model/declared_tensors.h"

namespace winnow::model {

// Returns the rows of the part; those of heads that turn in the order of rotary_order(), unless `order` is empty, which
// serves where only sizes count. Throws Error(kBadData) as Checkpoint::get() does.
kernels::HostTensor part_of(const Checkpoint& checkpoint, const PartSpec& part, const std::vector<int64_t>& order = {});

}  // namespace winnow::model
