// The families whose layers have mixtures of experts: the second half of the table of model/families.h.
#pragma once

#include <span>

#include "model/families.h"

namespace winnow::model {

std::span<const Family> expert_families();

}  // namespace winnow::model
