#include "results/storage/provenance.h"

#include <algorithm>

#include "base/utf8.h"

namespace winnow::storage {

void Provenance::set(const std::string& name, ProvenanceValue value, const std::string& long_name,
                     const std::string& units) {
  if (std::string* text = std::get_if<std::string>(&value)) *text = to_utf8(*text);
  const char* default_units = std::holds_alternative<std::string>(value) ? "text" : "1";
  ProvenanceEntry entry{name, std::move(value), units.empty() ? default_units : units, long_name};
  const auto same = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.name == name; });
  if (same != entries_.end()) {
    *same = std::move(entry);
  } else {
    entries_.push_back(std::move(entry));
  }
}

const ProvenanceEntry* Provenance::find(std::string_view name) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

std::string Provenance::text(std::string_view name) const {
  const ProvenanceEntry* entry = find(name);
  const std::string* value = entry != nullptr ? std::get_if<std::string>(&entry->value) : nullptr;
  return value != nullptr ? *value : "";
}

bool is_valid_name(std::string_view name) {
  constexpr std::string_view kPunctuation = "_.-";
  const auto is_valid = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kPunctuation.find(c) != std::string_view::npos;
  };
  return !name.empty() && name != "." && name != ".." && std::all_of(name.begin(), name.end(), is_valid);
}

}  // namespace winnow::storage
