// The record of where a result comes from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace winnow::storage {

using ProvenanceValue = std::variant<std::string, int64_t, double>;

// One scalar of /provenance.
struct ProvenanceEntry {
  std::string name;  // letters, digits, _ . -
  ProvenanceValue value;
  std::string units;      // "s", "bytes", "tokens"; "1" for pure numbers, "text" for strings
  std::string long_name;  // one line for a reader who has only the file

  bool operator==(const ProvenanceEntry&) const = default;
};

// Named strings and numbers on where a result comes from, in the order in which they were first set.
class Provenance {
 public:
  // Replaces an entry of that name in its place, or appends one. Empty units: "text" for strings, "1" for numbers.
  // Bytes of a string that are not UTF-8 become U+FFFD.
  void set(const std::string& name, ProvenanceValue value, const std::string& long_name, const std::string& units = "");
  const ProvenanceEntry* find(std::string_view name) const;  // nullptr: not there
  std::string text(std::string_view name) const;             // "" when not there or a number
  const std::vector<ProvenanceEntry>& entries() const { return entries_; }

 private:
  std::vector<ProvenanceEntry> entries_;
};

// Returns true if a name may be used in /control and /provenance.
bool is_valid_name(std::string_view name);

}  // namespace winnow::storage
