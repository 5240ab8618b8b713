#include "pipeline/texts.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "kernels/error.h"
#include "pipeline/digest.h"
#include "results/atomic_file.h"

namespace winnow {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTextsFormat = "winnow-texts";
constexpr int64_t kTextsVersion = 1;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json line_of(const Text& text) {
  return {{"example", text.example},  {"example_id", text.example_id}, {"prompt_tokens", text.prompt_tokens},
          {"token_ids", text.tokens}, {"stopped", text.stopped},       {"cache_bytes", text.cache_bytes}};
}

Text text_of(const Json& line) {
  return {.example = line.at("example").get<int64_t>(),
          .example_id = line.at("example_id").get<std::string>(),
          .prompt_tokens = line.at("prompt_tokens").get<int64_t>(),
          .tokens = line.at("token_ids").get<std::vector<int32_t>>(),
          .stopped = line.at("stopped").get<bool>(),
          .cache_bytes = line.at("cache_bytes").get<int64_t>()};
}

// The file of a batch begins with a line about it, which has the hash of the lines that follow.
std::optional<TextBatch> read_batch(const std::filesystem::path& path, const std::string& key) {
  std::ifstream file(path, std::ios::binary);
  std::string first;
  if (!std::getline(file, first)) fail(ExitCode::kBadData, "it is empty or cannot be read");
  const Json head = Json::parse(first);
  if (head.at("format") != kTextsFormat || head.at("format_version") != kTextsVersion) return std::nullopt;
  if (head.at("key") != key) return std::nullopt;
  std::stringstream rest;
  rest << file.rdbuf();
  if (sha256_of(rest.str()) != head.at("content_sha256").get<std::string>())
    fail(ExitCode::kBadData, "its content is damaged");
  TextBatch batch{.pattern = head.at("pattern").get<std::string>(),
                  .prompt_tokens = head.at("prompt_tokens").get<int64_t>(),
                  .prefill_seconds = head.at("prefill_seconds").get<double>(),
                  .decoded_tokens = head.at("decoded_tokens").get<int64_t>(),
                  .decode_seconds = head.at("decode_seconds").get<double>(),
                  .texts = {}};
  for (std::string line; std::getline(rest, line);) batch.texts.push_back(text_of(Json::parse(line)));
  return batch;
}

}  // namespace

std::filesystem::path text_directory(const std::filesystem::path& run_directory) { return run_directory / "texts"; }

void write_batch(const std::filesystem::path& directory, const std::string& key, const TextBatch& batch) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) fail(ExitCode::kCannotCreate, directory.string() + ": cannot be made: " + error.message());
  std::string lines;
  for (const Text& text : batch.texts) lines += dump(line_of(text)) + "\n";
  const Json head = {{"format", kTextsFormat},
                     {"format_version", kTextsVersion},
                     {"key", key},
                     {"pattern", batch.pattern},
                     {"prompt_tokens", batch.prompt_tokens},
                     {"prefill_seconds", batch.prefill_seconds},
                     {"decoded_tokens", batch.decoded_tokens},
                     {"decode_seconds", batch.decode_seconds},
                     {"content_sha256", sha256_of(lines)}};
  // Named by what is in it: two ranks never write one file.
  write_file_atomically(directory / (sha256_of(key + lines + batch.pattern).substr(0, 24) + ".jsonl"),
                        dump(head) + "\n" + lines);
}

std::vector<TextBatch> read_batches(const std::filesystem::path& directory, const std::string& key,
                                    std::vector<std::string>& notes) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".jsonl") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<TextBatch> batches;
  for (const std::filesystem::path& path : paths) {
    try {
      if (auto batch = read_batch(path, key)) batches.push_back(*std::move(batch));
    } catch (const Error& reason) {
      notes.push_back(path.string() + ": passed over, its texts are written again: " + reason.what());
    } catch (const Json::exception&) {  // its message may quote the file's bytes
      notes.push_back(path.string() + ": passed over, its texts are written again: not the JSON of texts");
    }
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

}  // namespace winnow
