#include "pipeline/run/corpus.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"

namespace winnow::run {
namespace {

[[noreturn]] void refuse(const Corpus& corpus, const std::string& what) {
  fail(ExitCode::kBadData, corpus.path.string() + ": " + what + "; make the file anew with winnow prepare");
}

void check_lengths(const Corpus& corpus, bool has_source) {
  const auto n = corpus.answer_start.size();
  if (n == 0) refuse(corpus, "/answer_start is empty: the set has no example");
  const auto expect = [&](const char* dataset, std::size_t found, std::size_t expected) {
    if (found == expected) return;
    refuse(corpus, std::string(dataset) + " has " + std::to_string(found) + " entries, expected " +
                       std::to_string(expected) + " for the " + std::to_string(n) + " examples of /answer_start");
  };
  expect("/offsets", corpus.offsets.size(), n + 1);
  expect("/example_id", corpus.example_id.size(), n);
  if (has_source) expect("/source", corpus.source.size(), n);
}

void check_offsets(const Corpus& corpus) {
  if (corpus.offsets.front() != 0) {
    refuse(corpus, "/offsets[0] is " + std::to_string(corpus.offsets.front()) + ", expected 0");
  }
  const auto total = static_cast<int64_t>(corpus.tokens.size());
  for (int64_t e = 0; e < corpus.size(); ++e) {
    const int64_t begin = corpus.offsets[static_cast<std::size_t>(e)];
    const int64_t end = corpus.offsets[static_cast<std::size_t>(e) + 1];
    if (end <= begin) {
      refuse(corpus, corpus.name_of(e) + ": /offsets do not rise: " + std::to_string(begin) + " is followed by " +
                         std::to_string(end));
    }
    if (end > total) {
      refuse(corpus, corpus.name_of(e) + ": /offsets end at " + std::to_string(end) + ", beyond the " +
                         std::to_string(total) + " entries of /tokens");
    }
  }
  if (corpus.offsets.back() != total) {
    refuse(corpus, "/offsets end at " + std::to_string(corpus.offsets.back()) + ", but /tokens has " +
                       std::to_string(total) + " entries");
  }
}

void check_examples(const Corpus& corpus, int64_t vocab) {
  std::unordered_map<std::string, int64_t> first_with_id;
  for (int64_t e = 0; e < corpus.size(); ++e) {
    const auto tokens = corpus.example(e);
    const auto n_tokens = static_cast<int64_t>(tokens.size());
    const int64_t start = corpus.answer_start[static_cast<std::size_t>(e)];
    if (start < 1) {
      refuse(corpus, corpus.name_of(e) + ": /answer_start is " + std::to_string(start) +
                         ", expected at least 1: the first token has no row that predicts it");
    }
    if (start >= n_tokens) {
      refuse(corpus, corpus.name_of(e) + ": /answer_start is " + std::to_string(start) + " of " +
                         std::to_string(n_tokens) + " tokens: the answer is empty");
    }
    const auto bad = std::find_if(tokens.begin(), tokens.end(), [&](int32_t t) { return t < 0 || t >= vocab; });
    if (bad != tokens.end()) {
      refuse(corpus, corpus.name_of(e) + ": token " + std::to_string(bad - tokens.begin()) + " is " +
                         std::to_string(*bad) + ", expected 0 to " + std::to_string(vocab - 1) +
                         " (the model's vocabulary)");
    }
    const auto [entry, is_new] = first_with_id.try_emplace(corpus.example_id[static_cast<std::size_t>(e)], e);
    if (!is_new) {
      refuse(corpus, corpus.name_of(e) + ": /example_id is already that of example " + std::to_string(entry->second));
    }
  }
}

// Reads how texts are judged, which format_version 2 adds. The reference answers are for winnow score: here it is only
// made sure that each example has some.
void read_tasks(const storage::Group& root, Corpus& corpus) {
  const auto n = static_cast<std::size_t>(corpus.size());
  const auto texts = [&](const char* name, bool may_be_empty) {
    std::vector<std::string> values = root.read<std::string>(name, 1).values;
    if (values.size() != n) {
      refuse(corpus, std::string("/") + name + " has " + std::to_string(values.size()) + " entries, expected " +
                         std::to_string(n) + " for the examples of /answer_start");
    }
    const auto empty = std::find(values.begin(), values.end(), "");
    if (!may_be_empty && empty != values.end()) {
      refuse(corpus, corpus.name_of(empty - values.begin()) + ": /" + name + " is empty");
    }
    return values;
  };
  corpus.task = texts("task", false);
  corpus.metric = texts("metric", false);
  corpus.length_bin = texts("length_bin", false);
  texts("gold_answer", false);
  texts("answer_prefix", true);
  texts("metric_options", true);
  const auto total = static_cast<int64_t>(root.read<std::string>("references", 1).values.size());
  const std::vector<int64_t> offsets = root.read<int64_t>("reference_offsets", 1).values;
  if (offsets.size() != n + 1 || offsets.front() != 0 || offsets.back() != total) {
    refuse(corpus, "/reference_offsets: expected " + std::to_string(n + 1) + " entries from 0 to the " +
                       std::to_string(total) + " entries of /references");
  }
  for (std::size_t e = 0; e < n; ++e) {
    if (offsets[e + 1] <= offsets[e]) {
      refuse(corpus, corpus.name_of(static_cast<int64_t>(e)) + ": /reference_offsets do not rise: " +
                         std::to_string(offsets[e]) + " is followed by " + std::to_string(offsets[e + 1]));
    }
  }
}

}  // namespace

std::string Corpus::token_hash(int64_t e) const {
  constexpr std::size_t kDigits = 16;
  return sha256_of(std::as_bytes(example(e))).substr(0, kDigits);
}

std::string Corpus::name_of(int64_t e) const {
  const auto index = static_cast<std::size_t>(e);
  const std::string id = index < example_id.size() ? " (id " + quote(example_id[index]) + ")" : "";
  return "example " + std::to_string(e) + id;
}

int64_t require_calibration_format(const storage::File& file) {
  return storage::require_format(file, "winnow-calibration", 2, 1);
}

Corpus read_corpus(const std::filesystem::path& path, int64_t vocab) {
  const std::optional<FileStamp> stamp = FileStamp::of(path);
  const storage::File file = storage::File::open(path);
  const int64_t version = require_calibration_format(file);
  const storage::Group root = file.root();
  Corpus corpus;
  corpus.path = path;
  corpus.stamp = stamp;
  corpus.tokens = root.read<int32_t>("tokens", 1).values;
  corpus.offsets = root.read<int64_t>("offsets", 1).values;
  corpus.answer_start = root.read<int64_t>("answer_start", 1).values;
  corpus.example_id = root.read<std::string>("example_id", 1).values;
  const bool has_source = root.contains("source");
  if (has_source) corpus.source = root.read<std::string>("source", 1).values;
  check_lengths(corpus, has_source);
  check_offsets(corpus);
  check_examples(corpus, vocab);
  if (version >= 2) read_tasks(root, corpus);
  corpus.sha256 = sha256_of_file(path);
  if (FileStamp::of(path) != stamp) {
    fail(ExitCode::kBadData, path.string() + ": changed while it was read; repeat the command when it is complete");
  }
  return corpus;
}

void check_unchanged(const Corpus& corpus) {
  const std::optional<FileStamp> now = FileStamp::of(corpus.path);
  if (!now || now == corpus.stamp) return;
  if (!std::filesystem::is_regular_file(corpus.path) || sha256_of_file(corpus.path) != corpus.sha256) {
    fail(ExitCode::kBadData, corpus.path.string() +
                                 ": has changed since this run read it; finished units are kept, and the same command "
                                 "resumes with the former file; a changed one needs an --out of its own");
  }
  corpus.stamp = now;
}

}  // namespace winnow::run
