#include "model/config_fields.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/json.h"

namespace winnow::model {

ConfigFields::ConfigFields(const Json& object, std::string origin, std::string prefix)
    : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

bool ConfigFields::has(const char* key) const { return !value(key).is_null(); }

const nlohmann::json& ConfigFields::value(const char* key) const {
  static const Json kNull;
  const auto found = object_.find(key);
  return found == object_.end() ? kNull : *found;
}

void ConfigFields::refuse(const char* key, const std::string& expected) const {
  const std::string found = object_.contains(key) ? shown(value(key)) : "none";
  fail(ExitCode::kBadData, origin_ + ": " + prefix_ + key + ": expected " + expected + ", found " + found);
}

int64_t ConfigFields::integer(const char* key, int64_t fallback, int64_t lowest) const {
  if (!object_.contains(key)) return fallback;
  const Json& found = value(key);
  const std::string expected = "an integer from " + std::to_string(lowest) + " to " + std::to_string(kMaxSize);
  if (!found.is_number()) refuse(key, expected);
  // Exact up to 2^53, which is beyond kMaxSize.
  const auto number = found.get<double>();
  if (!(number >= static_cast<double>(lowest) && number <= static_cast<double>(kMaxSize))) refuse(key, expected);
  if (std::trunc(number) != number) refuse(key, expected);
  return static_cast<int64_t>(number);
}

double ConfigFields::positive(const char* key, double fallback) const {
  if (!object_.contains(key)) return fallback;
  const Json& found = value(key);
  const char* expected = "a number > 0 within float32's range";
  if (!found.is_number()) refuse(key, expected);
  const auto number = found.get<double>();
  constexpr double kLowest = std::numeric_limits<float>::min();
  constexpr double kHighest = std::numeric_limits<float>::max();
  if (!(number >= kLowest && number <= kHighest)) refuse(key, expected);
  return number;
}

double ConfigFields::number(const char* key, double fallback) const {
  if (!has(key)) return fallback;
  const Json& found = value(key);
  if (!found.is_number() || !(std::abs(found.get<double>()) <= std::numeric_limits<float>::max())) {
    refuse(key, "a number within float32's range");
  }
  return found.get<double>();
}

bool ConfigFields::boolean(const char* key, bool fallback) const {
  if (!object_.contains(key)) return fallback;
  if (!value(key).is_boolean()) refuse(key, "true or false");
  return value(key).get<bool>();
}

std::string ConfigFields::text(const char* key, const std::string& fallback) const {
  if (!object_.contains(key)) return fallback;
  if (!value(key).is_string()) refuse(key, "a string");
  return value(key).get<std::string>();
}

}  // namespace winnow::model
