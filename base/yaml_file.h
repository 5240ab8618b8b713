// Reads the YAML files that people write: sweeps, site settings, --config. Reading ends whatever a file holds, and what
// is wrong with it has a place.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "base/error.h"

namespace winnow {

// Says what is wrong with the text of a YAML file. Lines and columns count from 1.
class YamlError : public std::runtime_error {
 public:
  YamlError(int line, int column, const std::string& message)
      : std::runtime_error(message), line_(line), column_(column) {}
  int line() const { return line_; }
  int column() const { return column_; }

 private:
  int line_;
  int column_;
};

// Bounds that nothing comes near which a person writes.
inline constexpr std::size_t kLargestYamlFile = std::size_t{4} << 20;  // bytes
inline constexpr int kDeepestYaml = 32;                                // lists and maps within each other
inline constexpr int kMostYamlNodes = 400'000;                         // what aliases stand for counted each time

// Reads the bytes of a file. `what`: "the sweep file", for messages. Throws Error(kNoInput) where it cannot be read or
// is a directory, pipe or device, Error(kBadData) where it is larger than kLargestYamlFile.
std::string read_yaml_text(const std::filesystem::path& path, const std::string& what);

// Parses the one document of a text; null for an empty one. Throws YamlError for what is not YAML or not UTF-8 (UTF-16
// and UTF-32 with a mark are read, too), has a control character, a second document, or goes beyond the limits above.
YAML::Node parse_yaml(const std::string& text);

// Returns a value for a message: in one line, cut where it is long.
std::string shown_value(const std::string& value);

}  // namespace winnow
