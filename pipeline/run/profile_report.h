// What --profile prints and keeps.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "kernels/profiled_backend.h"
#include "pipeline/engine/rates.h"

namespace winnow {

// {operations: [{name, calls, seconds, flop, bytes}], total_seconds, idle_seconds, ceiling_flop_per_second,
// ceiling_bytes_per_second}
nlohmann::json profile_json(const Profile& profile, const Ceilings& ceilings);
// One line an operation: time, share of the total, TFLOP/s or GB/s and how much of the ceiling that is.
std::string profile_table(const Profile& profile, const Ceilings& ceilings);

}  // namespace winnow
