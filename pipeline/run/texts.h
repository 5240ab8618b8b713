// Texts that patterns generated: finished batches in the run directory, and the file for a judge.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/run/unit_store.h"

namespace winnow::run {

struct Text {
  int64_t example = 0;  // in the data set
  std::string example_id;
  int64_t prompt_tokens = 0;
  std::vector<int32_t> tokens;  // the stop token, if any, is the last
  bool stopped = false;         // by a stop token
  int64_t cache_bytes = 0;      // keys and values that the text was written with
};

// Texts of one pattern that were generated together, and what that took.
struct TextBatch {
  std::string pattern;  // pattern_name()
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0.0;
  int64_t decoded_tokens = 0;  // those that decoding added: a text's first token is the prompt's
  double decode_seconds = 0.0;
  std::vector<Text> texts;
};

// Writes a batch into the store: whole or not at all. `key` is the hash of all that decides what is written. Throws
// Error(kCannotCreate | kIoError).
void write_batch(const UnitStore& store, const std::string& key, const TextBatch& batch);
// Returns all batches of that key; those of other keys are passed over. Adds a line to `notes` for each that cannot be
// used. Throws Error(kIoError).
std::vector<TextBatch> read_batches(const UnitStore& store, const std::string& key, std::vector<std::string>& notes);

// Texts of a pattern under the name that the file gives it.
struct NamedTexts {
  std::string pattern;
  std::vector<const Text*> texts;
};
// Writes a line of JSON a text: {"example_id", "pattern", "prompt_tokens", "token_ids", "stopped"}, where stopped is
// false for a text that reached the limit. Throws Error(kCannotCreate | kIoError).
void write_responses(const std::filesystem::path& path, const std::vector<NamedTexts>& patterns);

}  // namespace winnow::run
