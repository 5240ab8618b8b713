#include "model/quantization/modules.h"

#include <algorithm>

namespace winnow::quantization {

namespace {

// Longer expressions, and those with counted repetitions, could take more memory and time than reading the weights.
constexpr std::size_t kMaxExpression = 300;

std::string with_escaped_dots(const std::string& text) {
  std::string expression;
  for (const char c : text) {
    if (c == '*') {
      expression += ".*";
    } else {
      if (std::string_view(".[](){}^$+?|\\").find(c) != std::string_view::npos) expression += '\\';
      expression += c;
    }
  }
  return expression;
}

}  // namespace

ModuleList::ModuleList(const ConfigFields& fields, const char* key, ModuleRule rule) : rule_(rule) {
  if (!fields.has(key)) return;
  const nlohmann::json& list = fields.value(key);
  const auto is_text = [](const nlohmann::json& entry) { return entry.is_string(); };
  if (!list.is_array() || !std::ranges::all_of(list, is_text)) fields.refuse(key, "a list of names of modules");
  for (const nlohmann::json& entry : list) add(fields, key, entry.get<std::string>());
}

void ModuleList::add(const ConfigFields& fields, const char* key, const std::string& text) {
  std::string expression;
  if (rule_ == ModuleRule::kPrefix) {
    names_.push_back(text);
    expression = text;
  } else if (rule_ == ModuleRule::kWildcards) {
    expression = with_escaped_dots(text);
  } else if (text.starts_with("re:")) {
    expression = text.substr(3);
  } else {
    names_.push_back(text);
    has_class_ = has_class_ || (!text.empty() && text[0] >= 'A' && text[0] <= 'Z');
    return;
  }
  const bool is_readable = expression.size() <= kMaxExpression && expression.find('{') == std::string::npos;
  try {
    if (!is_readable) throw std::regex_error(std::regex_constants::error_complexity);
    // Polynomial: no expression from a file takes exponential time on a name.
    expressions_.emplace_back(expression, std::regex::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error&) {
    fields.refuse(key, "names and short regular expressions (" + quote(text.substr(0, 80)) + " is neither)");
  }
}

bool ModuleList::matches(const std::string& module) const {
  if (rule_ == ModuleRule::kExact) {
    const auto begins = [&](const std::regex& expression) {
      return std::regex_search(module, expression, std::regex_constants::match_continuous);
    };
    return std::ranges::find(names_, module) != names_.end() || std::ranges::any_of(expressions_, begins);
  }
  if (rule_ == ModuleRule::kWildcards) {
    return std::ranges::any_of(expressions_, [&](const auto& each) { return std::regex_match(module, each); });
  }
  if (std::ranges::any_of(names_, [&](const std::string& name) { return !name.empty() && module.ends_with(name); })) {
    return true;
  }
  // An expression ends at a boundary: before a dot, after one, or where the name ends.
  for (std::size_t dot = module.find('.');; dot = module.find('.', dot + 1)) {
    const bool is_last = dot == std::string::npos;
    const std::string before = module.substr(0, dot);
    const std::string with_dot = is_last ? before : module.substr(0, dot + 1);
    const auto ends_here = [&](const std::regex& expression) {
      return std::regex_match(before, expression) || std::regex_match(with_dot, expression);
    };
    if (std::ranges::any_of(expressions_, ends_here)) return true;
    if (is_last) return false;
  }
}

}  // namespace winnow::quantization
