// Pieces of tables for the terminal.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

#include "base/error.h"

namespace winnow {

// Columns that tables keep to.
inline constexpr int kTableColumns = 100;

inline std::string number(double value, const char* format = "%.3g") {
  if (std::isnan(value)) return "n/a";
  char text[40];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

// Rounded first, so that a tiny negative share is not printed as -0.0 %.
inline std::string percent(double share) { return number(std::round(1000.0 * share) / 10.0 + 0.0, "%.1f %%"); }

// Names out of files are padded: they stay on their line.
inline std::string left(const std::string& name, std::size_t width) {
  std::string text = one_line(name);
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

inline std::string right(const std::string& name, std::size_t width) {
  const std::string text = one_line(name);
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

inline std::string bracketed(const std::string& low, const std::string& high) {
  std::string text = "[";
  return text.append(low).append(", ").append(high).append("]");
}

// One line of text, broken at spaces where it is too long; continuation lines are indented.
inline std::string wrapped(const std::string& text, std::size_t indent) {
  constexpr std::size_t kWidth = kTableColumns;
  std::string result, rest = text;
  while (rest.size() > kWidth) {
    const std::size_t cut = rest.rfind(' ', kWidth);
    if (cut == std::string::npos || cut <= indent) break;
    result += rest.substr(0, cut) + "\n";
    rest = std::string(indent, ' ') + rest.substr(cut + 1);
  }
  return result + rest + "\n";
}

}  // namespace winnow
