#include "base/terminal_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace winnow {

std::string number(double value, const char* format) {
  return std::isnan(value) ? "n/a" : fmt::format(fmt::runtime(format), value);
}

std::string percent(double share) { return number(std::round(1000.0 * share) / 10.0 + 0.0, "{:.1f} %"); }

std::string bracketed(const std::string& low, const std::string& high) { return fmt::format("[{}, {}]", low, high); }

std::string left(const std::string& text, std::size_t width) {
  std::string padded = one_line(text);
  padded.resize(std::max(padded.size(), width), ' ');
  return padded;
}

std::string right(const std::string& text, std::size_t width) {
  const std::string line = one_line(text);
  return std::string(std::max(width, line.size()) - line.size(), ' ') + line;
}

std::string wrapped(const std::string& text, std::size_t indent) {
  std::string result, rest = text;
  while (rest.size() > kTableColumns) {
    const std::size_t cut = rest.rfind(' ', kTableColumns);
    if (cut == std::string::npos || cut <= indent) break;
    result += rest.substr(0, cut) + "\n";
    rest = std::string(indent, ' ') + rest.substr(cut + 1);
  }
  return result + rest + "\n";
}

void TerminalTable::add(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = one_line(cell);
  if (columns_.size() < cells.size()) columns_.resize(cells.size());
  rows_.push_back(std::move(cells));
}

std::string TerminalTable::text() const {
  using Align = Column::Align;
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = columns_[c].width;
    for (const std::vector<std::string>& row : rows_) {
      if (columns_[c].width == 0 && c < row.size()) width = std::max(width, row[c].size());
    }
    widths.push_back(width);
  }
  std::string text;
  for (const std::vector<std::string>& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      if (c > 0) line.append(gap_, ' ');
      if (columns_[c].align == Align::kRight) {
        line += right(row[c], widths[c]);
      } else if (columns_[c].align == Align::kName && row[c].size() >= widths[c]) {
        line += row[c] + "\n" + std::string(widths[c], ' ');
      } else {
        line += left(row[c], widths[c]);
      }
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace winnow
