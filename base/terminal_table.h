// Tables and numbers for the terminal.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace winnow {

// Width that tables keep to, in characters.
inline constexpr std::size_t kTableColumns = 100;

// Returns the value in a format of the library fmt; "n/a" for NaN.
std::string number(double value, const char* format = "{:.3g}");
// Returns "62.5 %". It rounds first, so that a tiny negative share is not printed as -0.0 %.
std::string percent(double share);
// Returns "[low, high]".
std::string bracketed(const std::string& low, const std::string& high);
// Pad a text on the right (left()) or on the left (right()) to `width` bytes. Names out of files stay on their line.
std::string left(const std::string& text, std::size_t width);
std::string right(const std::string& text, std::size_t width);
// Breaks one line of text at spaces where it is too long; continuation lines are indented.
std::string wrapped(const std::string& text, std::size_t indent);

// Rows of cells, each padded as its column says. Nothing is printed behind the last character of a row.
class TerminalTable {
 public:
  struct Column {
    enum class Align {
      kLeft,
      kRight,
      kName,  // left; a text that does not leave a blank has a line of its own
    };
    Align align = Align::kLeft;
    std::size_t width = 0;  // bytes; 0: of the widest cell. A wider cell moves the rest of its row.
  };

  // Makes a table of these columns, with `gap` blanks between them.
  explicit TerminalTable(std::vector<Column> columns, std::size_t gap = 0) : columns_(std::move(columns)), gap_(gap) {}
  // Makes as many columns as the first row has, aligned to the left and as wide as their widest cells.
  explicit TerminalTable(std::size_t gap) : gap_(gap) {}

  // Adds a row, the head too: cells from the first column on, of which there may be fewer than columns.
  void add(std::vector<std::string> cells);
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::size_t gap_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace winnow
