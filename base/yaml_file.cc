#include "base/yaml_file.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/text_file.h"
#include "base/utf8.h"

namespace winnow {
namespace {

constexpr std::size_t kLongestShown = 80;  // bytes of a value in a message

// yaml-cpp takes U+0004 for the end of the file and would drop what is behind it; YAML has no control characters at
// all.
void check_characters(const std::string& text) {
  int line = 1;
  int column = 1;
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t length = utf8_character_bytes(std::string_view(text).substr(i));
    if (length == 0) throw YamlError(line, column, "this is not UTF-8; expected text in UTF-8");
    const bool is_c1 = length == 2 && c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0 &&
                       static_cast<unsigned char>(text[i + 1]) != 0x85;
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f || is_c1) {
      throw YamlError(line, column, "there is a control character; expected text without any");
    }
    column = c == '\n' ? 1 : column + 1;
    line += c == '\n' ? 1 : 0;
    i += length;
  }
}

// With a mark of another encoding yaml-cpp translates it.
bool is_utf16_or_32(const std::string& text) {
  const auto starts = [&](std::initializer_list<unsigned char> bytes) {
    return text.size() >= bytes.size() &&
           std::equal(bytes.begin(), bytes.end(), text.begin(),
                      [](unsigned char a, char b) { return a == static_cast<unsigned char>(b); });
  };
  return starts({0xfe, 0xff}) || starts({0xff, 0xfe}) || starts({0x00, 0x00, 0xfe, 0xff});
}

YamlError error_at(const YAML::Mark& mark, const std::string& message) {
  return {std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1, message};  // -1 where there is no place
}

// Counts nodes as a reader meets them: one that an alias names, once for every alias. A few lines of aliases of aliases
// stand for more nodes than any memory holds, and an alias within what it names for endless ones.
void check_size(const YAML::Node& node, int depth, int& count) {
  if (++count > kMostYamlNodes) {
    throw error_at(node.Mark(), "there are more than " + std::to_string(kMostYamlNodes) +
                                    " values, aliases counted; expected a smaller file");
  }
  if (depth > kDeepestYaml) {
    throw error_at(node.Mark(), "lists and maps are more than " + std::to_string(kDeepestYaml) +
                                    " deep; expected fewer within each other");
  }
  if (node.IsSequence()) {
    for (const YAML::Node& item : node) check_size(item, depth + 1, count);
  } else if (node.IsMap()) {
    for (const auto& entry : node) {
      check_size(entry.first, depth + 1, count);
      check_size(entry.second, depth + 1, count);
    }
  }
}

}  // namespace

std::string read_yaml_text(const std::filesystem::path& path, const std::string& what) {
  using Status = FileText::Status;
  FileText file = read_file(path, {.max_bytes = kLargestYamlFile});
  if (file.status == Status::kDone) return std::move(file.text);
  const std::string why = file.status == Status::kFailed      ? std::strerror(file.error)
                          : file.status == Status::kDirectory ? "it is a directory"
                          : file.status == Status::kTooLarge
                              ? "it has more than " + std::to_string(kLargestYamlFile) + " bytes"
                              : "it is a pipe, socket or device";
  fail(file.status == Status::kTooLarge ? ExitCode::kBadData : ExitCode::kNoInput,
       path.string() + ": " + what + " cannot be read: " + why + "; give the name of a YAML file");
}

YAML::Node parse_yaml(const std::string& text) {
  if (!is_utf16_or_32(text)) check_characters(text);
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(text);
  } catch (const YAML::Exception& error) {
    throw error_at(error.mark, "this is not YAML: " + error.msg + "; expected lines of the form KEY: VALUE");
  }
  if (documents.empty()) return YAML::Node(YAML::NodeType::Null);
  for (std::size_t i = 1; i < documents.size(); ++i) {
    if (documents[i].IsNull()) continue;  // a last "---" with nothing behind it
    throw error_at(documents[i].Mark(), "a second YAML document begins here; expected one in a file");
  }
  int count = 0;
  check_size(documents.front(), 0, count);
  return documents.front();
}

std::string shown_value(const std::string& value) {
  std::string text = one_line(value.substr(0, kLongestShown));
  if (value.size() <= kLongestShown) return text;
  // Whole characters only.
  while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0xc0) == 0x80) text.pop_back();
  if (!text.empty() && static_cast<unsigned char>(text.back()) >= 0xc0) text.pop_back();
  return text + "... (" + std::to_string(value.size()) + " characters)";
}

}  // namespace winnow
