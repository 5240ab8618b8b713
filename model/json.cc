#include "model/json.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>
#include <vector>

#include "kernels/error.h"

namespace winnow {

namespace {

using Json = nlohmann::json;

// Checkpoints nest 3 levels deep, configurations 4.
constexpr int kMaxDepth = 64;
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
std::string reason(std::string_view text, const Json::exception& error) {
  const auto* parse_error = dynamic_cast<const Json::parse_error*>(&error);
  if (parse_error == nullptr) return "a number is out of range";
  const std::size_t at = std::max(parse_error->byte, std::size_t{1}) - 1;  // of the first byte that does not fit
  const std::string_view before = text.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_break = before.rfind('\n');
  const std::size_t column = line_break == std::string_view::npos ? before.size() + 1 : before.size() - line_break;
  return std::string(at < text.size() ? "wrong" : "ends too early,") + " at line " + std::to_string(line) +
         ", column " + std::to_string(column);
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, Json::parse_event_t event, const Json& value) {
    if (depth > kMaxDepth) {
      fail(ExitCode::kBadData, origin + ": JSON nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get_ref<const std::string&>()).second) {
      fail(ExitCode::kBadData, origin + ": JSON key " + shown(value) + " is there twice, expected once");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    fail(ExitCode::kBadData, origin + ": not JSON: " + reason(text, error));
  }
}

std::string json_text(const Json& json, int indent) {
  return terminal_safe(json.dump(indent, ' ', false, Json::error_handler_t::replace));
}

std::string json_text(const nlohmann::ordered_json& json, int indent) {
  return terminal_safe(json.dump(indent, ' ', false, Json::error_handler_t::replace));
}

std::string shown(const Json& value) { return cut(value.dump(-1, ' ', false, Json::error_handler_t::replace)); }

std::string quote(std::string_view text) { return shown(Json(std::string(text))); }

std::string read_text(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    fail(ExitCode::kNoInput, path.string() + ": cannot be read: not a regular file");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    fail(ExitCode::kNoInput, path.string() + ": cannot be read: " + std::strerror(errno));
  }
  std::string text;
  std::vector<char> chunk(1 << 16);
  while (file) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    text.append(chunk.data(), static_cast<std::size_t>(file.gcount()));
    if (text.size() > max_bytes) {
      fail(ExitCode::kBadData,
           path.string() + ": expected at most " + std::to_string(max_bytes >> 20) + " MiB of JSON, found more");
    }
  }
  if (file.bad()) fail(ExitCode::kNoInput, path.string() + ": cannot be read");
  return text;
}

}  // namespace winnow
