#include "pipeline/engine/stop_tokens.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "base/text_file.h"

namespace winnow::engine {

namespace {

int32_t stop_token(const nlohmann::json& value, int64_t vocab, const std::string& origin) {
  // Also what a number of 64 bits cannot hold is no token.
  const bool is_token = value.is_number_unsigned() && value.get<uint64_t>() < static_cast<uint64_t>(vocab);
  if (!is_token) {
    fail(ExitCode::kBadData, origin + ": eos_token_id: expected a token below " + std::to_string(vocab) +
                                 " or a list of such, found " + shown(value) + "; name the tokens with --stop-tokens");
  }
  return value.get<int32_t>();
}

}  // namespace

std::vector<int32_t> read_stop_tokens(const std::filesystem::path& model_dir, int64_t vocab) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const std::filesystem::path path = model_dir / name;
    if (!std::filesystem::exists(path)) continue;
    const nlohmann::json config = parse_json(read_text(path, kMaxConfigBytes), path.string(), JsonDialect::kPython);
    if (!config.is_object())
      fail(ExitCode::kBadData, path.string() + ": expected a JSON object, found " + shown(config));
    const auto field = config.find("eos_token_id");
    if (field == config.end() || field->is_null()) continue;
    if (!field->is_array()) return {stop_token(*field, vocab, path.string())};
    std::vector<int32_t> tokens;
    for (const nlohmann::json& value : *field) tokens.push_back(stop_token(value, vocab, path.string()));
    return tokens;
  }
  return {};
}

std::vector<int32_t> parse_stop_tokens(const std::string& text, const std::string& flag,
                                       const std::filesystem::path& model_dir, int64_t vocab) {
  if (text.empty()) return read_stop_tokens(model_dir, vocab);
  if (text == "none") return {};
  std::vector<int32_t> tokens;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    int32_t token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    if (error != std::errc() || token < 0 || token >= vocab || (next != end && *next != ',')) {
      fail(ExitCode::kUsage, flag + " is " + quote(text) + ", expected none or token ids below " +
                                 std::to_string(vocab) + " such as 1,2");
    }
    tokens.push_back(token);
    if (next == end) return tokens;
    at = next + 1;
  }
}

}  // namespace winnow::engine
