#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_kind.h"

namespace winnow {

namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

// Checkpoints nest 3 levels deep, configurations 4.
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxShown = 160;  // bytes of a value in a message

std::string cut(std::string text) {
  if (text.size() <= kMaxShown) return text;
  std::size_t end = kMaxShown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not within a character
  text.resize(end);
  return text + "...";
}

// JSON's writer escapes the controls of ASCII; the others can only stand in strings, too.
std::string terminal_safe(const std::string& json) {
  std::string text;
  for (std::string_view rest = json; !rest.empty();) {
    const std::size_t n = rest[0] == '\x7f' ? 1 : terminal_control_bytes(rest);
    if (n == 0) {
      text += rest[0];
      rest.remove_prefix(1);
      continue;
    }
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(rest[i]); };
    const unsigned code = n == 1   ? byte(0)
                          : n == 2 ? (byte(0) & 0x1FU) << 6 | (byte(1) & 0x3FU)
                                   : (byte(0) & 0x0FU) << 12 | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU);
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\u%04x", code);
    text += escape;
    rest.remove_prefix(n);
  }
  return text;
}

// In own words: the library's repeat what it read last, which need not be text.
std::string reason(std::string_view text, std::size_t byte, bool is_out_of_range) {
  if (const auto kind = file_kind(std::as_bytes(std::span(text)))) return "it is " + *kind;
  if (is_out_of_range) return "a number is out of range";
  const std::size_t at = std::max(byte, std::size_t{1}) - 1;  // of the first byte that does not fit
  const std::string_view before = text.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_break = before.rfind('\n');
  const std::size_t column = line_break == std::string_view::npos ? before.size() + 1 : before.size() - line_break;
  return std::string(at < text.size() ? "wrong" : "ends too early,") + " at line " + std::to_string(line) +
         ", column " + std::to_string(column);
}

// ---- Python's words -------------------------------------------------------------------------------------------------

constexpr std::pair<std::string_view, double> kWords[] = {
    {"NaN", std::numeric_limits<double>::quiet_NaN()},
    {"Infinity", std::numeric_limits<double>::infinity()},
    {"-Infinity", -std::numeric_limits<double>::infinity()},
};

struct PlainText {
  std::string text;                     // as long as what was given: places in messages stay right
  std::map<std::size_t, double> words;  // which of the numbers of the text, counted from 0, stand for what
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_of_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' || c == '.';
}

// Behind the string that begins at `at`.
std::size_t skip_string(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return at + 1;
}

// A number for each of Python's words: the parser knows none of them, and there is no other way to tell it.
PlainText without_words(std::string_view text) {
  PlainText plain{.text = std::string(text), .words = {}};
  std::size_t n_numbers = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '"') {
      at = skip_string(text, at);
      continue;
    }
    const std::size_t begin = at;
    while (at < text.size() && is_of_word(text[at])) ++at;
    if (at == begin) {
      ++at;
      continue;
    }
    const std::string_view word = text.substr(begin, at - begin);
    const auto* const known =
        std::ranges::find(kWords, word, [](const auto& each) -> std::string_view { return each.first; });
    if (known != std::end(kWords)) {
      plain.words[n_numbers] = known->second;
      plain.text.replace(begin, word.size(), word.size(), '1');
    }
    if (known != std::end(kWords) || is_digit(word.front()) || word.front() == '-') ++n_numbers;
  }
  return plain;
}

// ---- parsing --------------------------------------------------------------------------------------------------------

// Moves a name into an object and says where its value goes; nullptr, and the name stays, where it is there. An object
// that keeps its order is a list of pairs, in which the library would look for each new name from the beginning.
Json* add_member(Json& object, std::string& name, std::set<std::string>& /*names*/) {
  const auto [place, is_new] = object.get_ref<Json::object_t&>().try_emplace(std::move(name), nullptr);
  return is_new ? &place->second : nullptr;
}
OrderedJson* add_member(OrderedJson& object, std::string& name, std::set<std::string>& names) {
  if (!names.insert(name).second) return nullptr;
  OrderedJson::object_t::Container& members = object.get_ref<OrderedJson::object_t&>();
  members.emplace_back(std::move(name), nullptr);
  return &members.back().second;
}

// Builds the value from the library's events: its own builder goes through all earlier members of an object after each
// that it adds, wherever somebody listens in.
template <class J>
class Builder final : public nlohmann::json_sax<J> {
 public:
  using typename nlohmann::json_sax<J>::number_integer_t;
  using typename nlohmann::json_sax<J>::number_unsigned_t;
  using typename nlohmann::json_sax<J>::number_float_t;
  using typename nlohmann::json_sax<J>::string_t;
  using typename nlohmann::json_sax<J>::binary_t;

  Builder(std::string_view text, const std::string& origin, const std::map<std::size_t, double>& words)
      : text_(text), origin_(origin), words_(words) {}

  J take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put_number(value); }
  bool number_unsigned(number_unsigned_t value) override { return put_number(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return put_number(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }  // no text has any
  bool start_object(std::size_t /*size*/) override { return open(J::object()); }
  bool start_array(std::size_t /*size*/) override { return open(J::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    member_ = add_member(*open_.back().value, name, open_.back().names);
    if (member_ == nullptr) {
      fail(ExitCode::kBadData,
           origin_ + ": JSON key " + quote(name) + " is there twice, expected once; remove the one that is wrong");
    }
    return true;
  }

  bool parse_error(std::size_t byte, const std::string& /*token*/, const nlohmann::detail::exception& error) override {
    const bool is_out_of_range = dynamic_cast<const nlohmann::detail::parse_error*>(&error) == nullptr;
    fail(ExitCode::kBadData, origin_ + ": not JSON: " + reason(text_, byte, is_out_of_range));
  }

 private:
  struct Open {
    J* value;                     // an object or a list
    std::set<std::string> names;  // of an object with an order
  };

  J* put_value(J value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    J& parent = *open_.back().value;
    if (parent.is_object()) {
      *member_ = std::move(value);
      return member_;
    }
    parent.push_back(std::move(value));
    return &parent.back();
  }
  bool put(J value) {
    put_value(std::move(value));
    return true;
  }
  bool put_number(J value) {
    const auto word = words_.find(n_numbers_++);
    return put(word == words_.end() ? std::move(value) : J(word->second));
  }
  bool open(J value) {
    if (open_.size() == kMaxDepth) {
      fail(ExitCode::kBadData, origin_ + ": JSON nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    open_.push_back({put_value(std::move(value)), {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& origin_;
  const std::map<std::size_t, double>& words_;
  J root_;
  std::vector<Open> open_;  // what the next value is in, outermost first; no list grows while a part of it is open
  J* member_ = nullptr;     // of the innermost object, whose value comes next
  std::size_t n_numbers_ = 0;
};

template <class J>
J parse(std::string_view text, const std::string& origin, JsonDialect dialect) {
  PlainText plain;
  std::string_view readable = text;
  if (dialect == JsonDialect::kPython) {
    plain = without_words(text);
    readable = plain.text;
  }
  Builder<J> builder(text, origin, plain.words);
  J::sax_parse(readable.begin(), readable.end(), &builder);
  return builder.take();
}

void write(const OrderedJson& value, std::size_t indent, std::string& text) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    const auto number = value.get<double>();
    text += std::isnan(number) ? "NaN" : number > 0.0 ? "Infinity" : "-Infinity";
    return;
  }
  if (!value.is_structured() || value.empty()) {
    text += value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
    return;
  }
  const bool is_object = value.is_object();
  const std::string line = "\n" + std::string(indent + 2, ' ');
  bool is_first = true;
  text += is_object ? '{' : '[';
  for (const auto& [name, member] : value.items()) {
    text += (is_first ? "" : ",") + line;
    is_first = false;
    if (is_object) text += OrderedJson(name).dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + ": ";
    write(member, indent + 2, text);
  }
  text += "\n" + std::string(indent, ' ') + (is_object ? '}' : ']');
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin, JsonDialect dialect) {
  return parse<Json>(text, origin, dialect);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& origin, JsonDialect dialect) {
  return parse<OrderedJson>(text, origin, dialect);
}

std::string python_json(const OrderedJson& value) {
  std::string text;
  write(value, 0, text);
  return text;
}

std::string json_text(const Json& json, int indent) {
  return terminal_safe(json.dump(indent, ' ', false, Json::error_handler_t::replace));
}

std::string json_text(const nlohmann::ordered_json& json, int indent) {
  return terminal_safe(json.dump(indent, ' ', false, Json::error_handler_t::replace));
}

std::string shown(const Json& value) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) return python_json(value.get<double>());
  return cut(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string quote(std::string_view text) { return shown(Json(std::string(text))); }

ConfigFields::ConfigFields(const Json& object, std::string origin, std::string prefix)
    : object_(object), origin_(std::move(origin)), prefix_(std::move(prefix)) {}

bool ConfigFields::has(const char* key) const { return !value(key).is_null(); }

const nlohmann::json& ConfigFields::value(const char* key) const {
  static const nlohmann::json kNull;
  const auto found = object_.find(key);
  return found == object_.end() ? kNull : *found;
}

void ConfigFields::refuse(const char* key, const std::string& expected) const {
  const std::string found = object_.contains(key) ? shown(value(key)) : "none";
  fail(ExitCode::kBadData, origin_ + ": " + prefix_ + key + ": expected " + expected + ", found " + found);
}

int64_t ConfigFields::integer(const char* key, int64_t fallback, int64_t lowest) const {
  if (!object_.contains(key)) return fallback;
  const nlohmann::json& found = value(key);
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
  const nlohmann::json& found = value(key);
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

}  // namespace winnow
