// Reads the typed fields of one JSON object of a config.json: every refusal names file, field, expected and found.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace winnow::model {

class ConfigFields {
 public:
  using Json = nlohmann::json;

  // Largest size that a field may have; products of two sizes then fit int64.
  static constexpr int64_t kMaxSize = (int64_t{1} << 31) - 1;

  // Reads from `object`, which must outlive this. `prefix` comes before field names in messages ("rope_scaling.").
  ConfigFields(const Json& object, std::string origin, std::string prefix = "");

  bool is_absent(const char* key) const { return !object_.contains(key); }
  // Returns true if the field is there and not null.
  bool has(const char* key) const;
  // Returns the field, or null.
  const Json& value(const char* key) const;
  [[noreturn]] void refuse(const char* key, const std::string& expected) const;

  // Returns an integer in [1, kMaxSize]; 1e6 counts as one. `fallback` where the field is absent; null is refused.
  int64_t size(const char* key, int64_t fallback) const { return integer(key, fallback, 1); }
  int64_t integer(const char* key, int64_t fallback, int64_t lowest) const;
  // Returns a finite number > 0 that float32 can hold.
  double positive(const char* key, double fallback) const;
  // A finite number, of either sign.
  double number(const char* key, double fallback) const;
  bool boolean(const char* key, bool fallback) const;
  std::string text(const char* key, const std::string& fallback) const;

  const std::string& origin() const { return origin_; }

 private:
  const Json& object_;
  std::string origin_;
  std::string prefix_;
};

}  // namespace winnow::model
