// The files of each target.
#pragma once

#include "results/serving/plan.h"

namespace winnow::serving {

// Fills in files, command and warnings of the engine. `row` is how it is going to run the model. Throws as
// plan_export() does.
void plan_target(const Request& request, const EngineRow& row, ExportPlan& plan);

}  // namespace winnow::serving
