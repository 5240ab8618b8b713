#include "jobs/sweep/text_rules.h"

#include <algorithm>
#include <initializer_list>

namespace winnow::sweep {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name_character(char c) {
  return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '.' || c == '-';
}

// Takes the digits that a text begins with off it; false where there is none.
bool take_digits(std::string_view& text) {
  const std::string_view all = text;
  while (!text.empty() && is_digit(text.front())) text.remove_prefix(1);
  return text.size() < all.size();
}

bool take(std::string_view& text, char mark) {
  if (text.empty() || text.front() != mark) return false;
  text.remove_prefix(1);
  return true;
}

// A dash in front would make it a flag of some command.
bool is_name(std::string_view text) {
  return !text.empty() && text.front() != '-' && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), is_name_character);
}

bool is_time(std::string_view text) {
  if (!take_digits(text)) return false;
  if (take(text, '-') && !take_digits(text)) return false;
  for (int i = 0; i < 2 && !text.empty(); ++i) {
    if (!take(text, ':') || text.size() < 2 || !is_digit(text[0]) || !is_digit(text[1])) return false;
    text.remove_prefix(2);
  }
  return text.empty();
}

// Digits and one of these endings, or none.
bool is_size(std::string_view text, std::initializer_list<std::string_view> endings) {
  constexpr std::string_view kUnits = "KMGT";
  if (!take_digits(text)) return false;
  if (text.empty()) return true;
  if (kUnits.find(text.front()) == std::string_view::npos) return false;
  return std::find(endings.begin(), endings.end(), text.substr(1)) != endings.end();
}

bool is_memory(std::string_view text) { return is_size(text, {""}); }
bool is_byte_size(std::string_view text) { return is_size(text, {"", "B", "iB"}); }

bool is_layer_list(std::string_view text) {
  do {
    if (!take_digits(text) || (take(text, '-') && !take_digits(text))) return false;
  } while (take(text, ','));
  return text.empty();
}

bool is_base(std::string_view text) {
  constexpr std::string_view kList = "list:";
  if (text == "full" || text == "windowed") return true;
  return text.starts_with(kList) && is_layer_list(text.substr(kList.size()));
}

bool is_anything(std::string_view) { return true; }

}  // namespace

TextRule rule_of(ValueType type) {
  switch (type) {
    case ValueType::kName:
      return {is_name, "^[A-Za-z0-9_][A-Za-z0-9_.-]*$", "letters, digits, _ . -, and no dash or dot in front", 128};
    case ValueType::kTime:
      return {is_time, "^([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}$", "a time limit such as 02:00:00 or 1-12:00:00", 32};
    case ValueType::kMemory:
      return {is_memory, "^[0-9]+[KMGT]?$", "a size such as 64G", 16};
    case ValueType::kSize:
      return {is_byte_size, "^[0-9]+([KMGT](i?B)?)?$", "a size such as 8G", 16};
    case ValueType::kLayers:
      return {is_layer_list, "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", "layers such as 0-11,20", 32768};
    case ValueType::kBase:
      return {is_base, "^(full|windowed|list:[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$", "full, windowed or list:1,4",
              32768};
    default:
      return {is_anything, "", "text without control characters", 4096};
  }
}

}  // namespace winnow::sweep
