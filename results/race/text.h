// A race as text.
#pragma once

#include <string>

#include "base/json_values.h"
#include "results/race/race.h"

namespace winnow::race {

// Returns "95%".
std::string confidence_text(double confidence);
// Returns one line on the last look of a race, without a newline: "24 examples: top 3 settled, top 6 open (5 layers,
// ...". `name`: "" or what tells it from the others.
std::string look_line(const Race& race, const std::string& name);
// Returns the block of a result's table. `layer_examples`: (layers) of the record.
std::string to_block(const RaceRecord& record);
Json to_object(const RaceRecord& record);

}  // namespace winnow::race
