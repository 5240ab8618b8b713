// What --profile prints and keeps.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "kernels/profiled_ops.h"
#include "pipeline/engine/rates.h"

namespace winnow::run {

// {operations: [{name, calls, seconds, flop, bytes}], total_seconds, idle_seconds, ceiling_flop_per_second,
// ceiling_bytes_per_second}
nlohmann::json profile_json(const kernels::Profile& profile, const engine::Ceilings& ceilings);
// One line an operation: time, share of the total, TFLOP/s or GB/s and how much of the ceiling that is.
std::string profile_table(const kernels::Profile& profile, const engine::Ceilings& ceilings);

}  // namespace winnow::run
