// The report of --profile, as JSON and as text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/profiled_ops.h"
#include "pipeline/engine/rates.h"

namespace winnow::run {

// Returns {operations: [{name, calls, seconds, flop, bytes}], total_seconds, idle_seconds, ceiling_flop_per_second,
// ceiling_bytes_per_second}
nlohmann::json profile_json(const kernels::Profile& profile, const engine::Ceilings& ceilings);
// Returns {parts: [{name, what, seconds: one a rank}], total_seconds: one a rank}. ranks: seconds of each of
// runtime::Part, of each rank.
nlohmann::json timeline_json(const std::vector<std::vector<double>>& ranks);
// Returns one line an operation: time, share of the total, TFLOP/s or GB/s and the share of the ceiling that is.
std::string profile_table(const kernels::Profile& profile, const engine::Ceilings& ceilings);

}  // namespace winnow::run
