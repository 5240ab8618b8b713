// JSON as the verbs print it.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>

namespace winnow {

using Json = nlohmann::ordered_json;  // keys in the order in which they are written

// Returns null for NaN and infinity, which JSON does not have.
inline Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace winnow
