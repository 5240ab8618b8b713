// Untrusted JSON: safetensors headers, shard indices and config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace winnow {

enum class JsonDialect {
  kStrict,  // RFC 8259, as the reference reader of safetensors has it
  // The same with NaN, Infinity and -Infinity, as Python's json reads and writes them: for files beside the weights.
  kPython,
};

// Parses `text` in linear time. `origin` names the file, and the part of it, in messages. Throws Error(kBadData) for
// what is not JSON, naming what it is where its first bytes tell; for an object with a key twice (readers differ in
// which one they take) and for nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& origin, JsonDialect dialect = JsonDialect::kStrict);
// Does the same and keeps the order of the text.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& origin,
                                          JsonDialect dialect = JsonDialect::kStrict);

// Returns JSON as Python's json reads it, indented by two: numbers that are not finite are written in its words for
// them.
std::string python_json(const nlohmann::ordered_json& value);

// Return a value from a file for a one-line message: as JSON, with control characters escaped, cut where it is long.
std::string shown(const nlohmann::json& value);
std::string quote(std::string_view text);

// Return JSON as text for a file or a terminal; indent -1: one line. They never throw: bytes that are not UTF-8 become
// U+FFFD, and characters that a terminal would obey are escaped.
std::string json_text(const nlohmann::json& json, int indent);
std::string json_text(const nlohmann::ordered_json& json, int indent);

// Typed reading of one object of a config.json: every refusal names file, field, expected and found.
class ConfigFields {
 public:
  using Json = nlohmann::json;

  // Largest size that a field may have; products of two sizes then fit int64.
  static constexpr int64_t kMaxSize = (int64_t{1} << 31) - 1;

  // `object` must outlive this. `prefix` stands before field names in messages ("rope_scaling.").
  ConfigFields(const Json& object, std::string origin, std::string prefix = "");

  bool is_absent(const char* key) const { return !object_.contains(key); }
  // Whether the field is there and not null.
  bool has(const char* key) const;
  // The field, or null.
  const Json& value(const char* key) const;
  [[noreturn]] void refuse(const char* key, const std::string& expected) const;

  // An integer in [1, kMaxSize]; 1e6 counts as one. `fallback` where the field is absent; null is refused.
  int64_t size(const char* key, int64_t fallback) const { return integer(key, fallback, 1); }
  int64_t integer(const char* key, int64_t fallback, int64_t lowest) const;
  // A finite number > 0 that float32 can hold.
  double positive(const char* key, double fallback) const;
  // Returns a finite number, of either sign; `fallback` where the field is absent or null.
  double number(const char* key, double fallback) const;
  bool boolean(const char* key, bool fallback) const;
  std::string text(const char* key, const std::string& fallback) const;

  const std::string& origin() const { return origin_; }

 private:
  const Json& object_;
  std::string origin_;
  std::string prefix_;
};

}  // namespace winnow
