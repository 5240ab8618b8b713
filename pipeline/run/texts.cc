#include "pipeline/run/texts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/text_file.h"

namespace winnow::run {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTextsFormat = "winnow-texts";
constexpr int64_t kTextsVersion = 1;
constexpr const char* kHeadChecksum = "head_sha256";
constexpr std::size_t kMaxBatchBytes = std::size_t{1} << 30;  // a batch is some MB

std::string dump(const Json& json) { return json_text(json, -1); }

Json line_of(const Text& text) {
  return {{"example", text.example},  {"example_id", text.example_id}, {"prompt_tokens", text.prompt_tokens},
          {"token_ids", text.tokens}, {"stopped", text.stopped},       {"cache_bytes", text.cache_bytes}};
}

Text text_of(const nlohmann::json& line) {
  return {.example = line.at("example").get<int64_t>(),
          .example_id = line.at("example_id").get<std::string>(),
          .prompt_tokens = line.at("prompt_tokens").get<int64_t>(),
          .tokens = line.at("token_ids").get<std::vector<int32_t>>(),
          .stopped = line.at("stopped").get<bool>(),
          .cache_bytes = line.at("cache_bytes").get<int64_t>()};
}

struct ReadBatch {
  std::optional<TextBatch> batch;  // nullopt: of another key or version
  bool has_head_checksum = false;
};

// The file of a batch begins with a line about it, which has a checksum of its own and one of the lines that follow.
ReadBatch parse_batch(const std::filesystem::path& path, const std::string& key) {
  const std::string text = read_text(path, kMaxBatchBytes);
  const std::size_t head_end = std::min(text.find('\n'), text.size());
  const nlohmann::json head = parse_json(text.substr(0, head_end), "its first line");
  if (!head.is_object()) fail(ExitCode::kBadData, "its first line is no JSON object");
  // First of all: a key that was damaged must not make the batch one of another run.
  ReadBatch read;
  read.has_head_checksum =
      check_json(head, "its first line", "nothing else is lost", kHeadChecksum) == Checksum::kMatches;
  if (head.at("format") != kTextsFormat || head.at("format_version") != kTextsVersion || head.at("key") != key)
    return read;
  const std::string lines = text.substr(std::min(head_end + 1, text.size()));
  if (sha256_of(lines) != head.at("content_sha256").get<std::string>())
    fail(ExitCode::kBadData, "its content is damaged");
  TextBatch batch{.pattern = head.at("pattern").get<std::string>(),
                  .prompt_tokens = head.at("prompt_tokens").get<int64_t>(),
                  .prefill_seconds = head.at("prefill_seconds").get<double>(),
                  .decoded_tokens = head.at("decoded_tokens").get<int64_t>(),
                  .decode_seconds = head.at("decode_seconds").get<double>(),
                  .texts = {}};
  std::istringstream rest(lines);
  for (std::string line; std::getline(rest, line);) batch.texts.push_back(text_of(parse_json(line, "a text")));
  read.batch = std::move(batch);
  return read;
}

ReadBatch read_batch(const std::filesystem::path& path, const std::string& key) {
  try {
    return parse_batch(path, key);
  } catch (const Json::exception&) {  // its message may quote the file's bytes
    fail(ExitCode::kBadData, "not the JSON of texts");
  }
}

}  // namespace

void write_batch(const UnitStore& store, const std::string& key, const TextBatch& batch) {
  store.make();
  std::string lines;
  for (const Text& text : batch.texts) lines += dump(line_of(text)) + "\n";
  Json head = {{"format", kTextsFormat},
               {"format_version", kTextsVersion},
               {"key", key},
               {"pattern", batch.pattern},
               {"prompt_tokens", batch.prompt_tokens},
               {"prefill_seconds", batch.prefill_seconds},
               {"decoded_tokens", batch.decoded_tokens},
               {"decode_seconds", batch.decode_seconds},
               {"content_sha256", sha256_of(lines)}};
  head[kHeadChecksum] = json_checksum(nlohmann::json(head), kHeadChecksum);
  // Named by what is in it: two ranks never write one file.
  write_file_atomically(store.folder() / (sha256_of(key + lines + batch.pattern).substr(0, 24) + ".jsonl"),
                        dump(head) + "\n" + lines);
}

std::vector<TextBatch> read_batches(const UnitStore& store, const std::string& key, std::vector<std::string>& notes) {
  std::vector<TextBatch> batches;
  int64_t n_without = 0;
  const auto use = [&](const std::filesystem::path& path) {
    ReadBatch read = read_batch(path, key);
    if (!read.batch) return;
    batches.push_back(*std::move(read.batch));
    if (!read.has_head_checksum) ++n_without;
  };
  store.read_all(use, [&](const std::filesystem::path& path, const std::string& reason) {
    notes.push_back(path.string() + ": passed over, its texts are written again: " + reason);
  });
  if (n_without > 0) {
    notes.push_back(store.folder().string() + ": " + std::to_string(n_without) +
                    " batch(es) of texts are older and have no checksum over patterns and times: damage there would "
                    "not be noticed");
  }
  return batches;
}

void write_responses(const std::filesystem::path& path, const std::vector<NamedTexts>& patterns) {
  std::string lines;
  for (const NamedTexts& named : patterns) {
    for (const Text* text : named.texts) {
      const Json line = {{"example_id", text->example_id},
                         {"pattern", named.pattern},
                         {"prompt_tokens", text->prompt_tokens},
                         {"token_ids", text->tokens},
                         {"stopped", text->stopped}};
      lines += dump(line) + "\n";
    }
  }
  write_file_atomically(path, lines);
}

}  // namespace winnow::run
