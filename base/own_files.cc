#include "base/own_files.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"

namespace winnow {
namespace {

constexpr std::size_t kMaxJsonBytes = std::size_t{1} << 30;
constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20;

// A discarded value where the file is none, or no JSON.
nlohmann::json json_of(const std::filesystem::path& path) {
  try {
    return nlohmann::json::parse(read_text(path, kMaxJsonBytes), nullptr, false);
  } catch (const Error&) {
    return nlohmann::json::value_t::discarded;
  }
}

}  // namespace

bool is_own_json(const std::filesystem::path& path, const std::string& format) {
  const nlohmann::json json = json_of(path);
  return json.is_object() && json.contains("format") && json["format"] == format;
}

bool is_json_with(const std::filesystem::path& path, const std::vector<std::string>& keys) {
  std::string line;
  std::ifstream file(path, std::ios::binary);
  for (char c = 0; file.get(c) && c != '\n' && line.size() < kMaxLineBytes;) line += c;
  nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) json = json_of(path);
  return json.is_object() && std::all_of(keys.begin(), keys.end(), [&](const auto& key) { return json.contains(key); });
}

Output responses_output(const std::string& flag, const std::filesystem::path& path) {
  return {.flag = flag, .path = path, .what = "a file of responses", .is_own = [](const std::filesystem::path& old) {
            return is_json_with(old, {"example_id", "pattern", "token_ids"});
          }};
}

}  // namespace winnow
