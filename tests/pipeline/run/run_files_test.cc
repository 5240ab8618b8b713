// Damage to the files of a run directory: shards, run.json, batches of texts.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/checksum.h"
#include "pipeline/run/run_identity.h"
#include "pipeline/run/shards.h"
#include "pipeline/run/texts.h"
#include "tests/bit_flips.h"
#include "tests/scratch.h"

namespace winnow::run {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int64_t kFlips = 1000;

class RunFilesTest : public ::testing::Test {
 protected:
  const fs::path& directory() const { return scratch_.path(); }
  fs::path record() const { return directory() / "run.json"; }
  void put(const std::string& text) const { std::ofstream(record(), std::ios::binary) << text; }
  fs::path only_file(const fs::path& folder) const {
    const fs::path file = fs::directory_iterator(folder)->path();
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
    return file;
  }
  // A record as a run leaves it.
  Json write_record() const {
    RunRecord made;
    RunIdentity identity;
    identity.checkpoint_sha256 = "c0ffee";
    identity.data_sha256 = "da7a";
    identity.window_keys = 96;
    identity.decode = "windowed";
    made.adopt(identity, {{"short", "5407"}});
    made.informative() = {
        {"results_key", "abc"},
        {"runs",
         {{{"wall_seconds", 1.25e-7}, {"cells_done", 3}, {"rank", {{{"host", "here"}, {"load_seconds", 0.1}}}}}}},
        {"searches", {{"pairs", {{"objective", "nll"}, {"keep", 3}}}}}};
    made.write(directory());
    return Json::parse(made.text());
  }

  ScratchDirectory scratch_;
};

TEST_F(RunFilesTest, NoticesEveryFlipInAShard) {
  const Shard shard{.data_set = "calibration",
                    .example = 1,
                    .example_id = "second",
                    .variants = {-1, 2},
                    .names = {},
                    .scores = {{0.5, true, 1.0, {0.25F, 0.75F}}, {1.25, false, 0.5, {1.F, 1.5F}}},
                    .n_tokens = 2,
                    .seconds = 1.5,
                    .made_by = "rank 0 on here"};
  write_shard(directory(), shard, {.measurement = "m", .data_sha256 = "d"});
  const fs::path file = only_file(directory());
  const auto read = [&] {
    const ShardFile found = read_shard(file);
    return found.identity.measurement + found.shard.example_id + std::to_string(found.shard.scores[1].nll_nats);
  };
  EXPECT_EQ(flip_bits(file, kFlips, kChecksumBytes, read), kFlips + 8 * static_cast<int64_t>(kChecksumBytes));
}

TEST_F(RunFilesTest, NoticesAFlipInTheRecord) {
  write_record();
  const auto read = [&] {
    Json json = Json::parse(RunRecord::read(directory()).text());
    // A flip in the name of the checksum makes it a key that nobody knows, and a note.
    const Json known = {json["identity"], json["controls"], json["informative"]};
    return known.dump();
  };
  const auto size = static_cast<int64_t>(fs::file_size(record()));
  EXPECT_GT(flip_bits(record(), 0, size, read), 5 * size) << "all its bits";
}

TEST_F(RunFilesTest, ADamagedRecordSaysWhatToDoAndThatNothingIsLost) {
  Json json = write_record();
  json["identity"]["sinks"] = 4;
  put(json.dump());
  expect_error([&] { RunRecord::read(directory()); }, ExitCode::kBadData,
               {"run.json", "does not match its content_sha256", "move run.json away", "keeps the finished units"});
}

TEST_F(RunFilesTest, ARecordOfAnOlderWinnowIsReadWithANoteAndGetsAChecksum) {
  Json json = write_record();
  json.erase(kChecksumKey);
  put(json.dump());
  ::testing::internal::CaptureStderr();
  const RunRecord read = RunRecord::read(directory());
  const std::string note = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(note.find("run.json: has no checksum"), std::string::npos) << note;
  read.write(directory());
  EXPECT_EQ(RunRecord::read(directory()).text(), read.text());
  json = Json::parse(read.text());
  EXPECT_EQ(json[kChecksumKey], json_checksum(json));
}

TEST_F(RunFilesTest, ARecordOfAnyShapeIsOneLine) {
  Json good = write_record();
  good.erase(kChecksumKey);
  const auto refuse = [&](const std::string& text) {
    SCOPED_TRACE(text.substr(0, 80));
    put(text);
    expect_error([&] { RunRecord::read(directory()); }, ExitCode::kBadData, {"run.json"});
  };
  for (const char* text :
       {"", "5", "[]", "null", "\"x\"", "{", "{\"format\": \"winnow-run\", \"format\": \"winnow-run\"}"}) {
    refuse(text);
  }
  constexpr std::size_t kDeep = 100'000;
  std::string objects;
  for (std::size_t i = 0; i < kDeep; ++i) objects += "{\"a\":";
  refuse(std::string(kDeep, '[') + std::string(kDeep, ']'));
  refuse(objects + "1" + std::string(kDeep, '}'));
  const auto refuse_changed = [&](const std::function<void(Json&)>& change) {
    Json json = good;
    change(json);
    refuse(json.dump());
  };
  for (const char* key : {"format", "format_version", "identity", "controls", "informative"}) {
    refuse_changed([&](Json& json) { json.erase(key); });
    refuse_changed([&](Json& json) { json[key] = Json::array({1}); });
  }
  const auto refuse_informative = [&](const char* key, const Json& value) {
    refuse_changed([&](Json& json) { json["informative"][key] = value; });
  };
  refuse_informative("results_key", 5);
  for (const Json& runs :
       {Json("x"), Json(5), Json::object(), Json({"x"}), Json({{{"rank", 5}}}), Json({{{"rank", {5}}}}),
        Json({{{"wall_seconds", nullptr}}}), Json({{{"cells_done", "1"}}}), Json({{{"rank", {{{"host", 1}}}}}})}) {
    refuse_informative("runs", runs);
  }
  for (const Json& searches :
       {Json("x"), Json::array({1}), Json({{"sideways", Json::object()}}), Json({{"pairs", 5}}),
        Json({{"pairs", {{"objective", "luck"}}}}), Json({{"pairs", {{"objective", "nll"}, {"keep", "3"}}}})}) {
    refuse_informative("searches", searches);
  }
  put(good.dump());
  EXPECT_NO_THROW(RunRecord::read(directory()));
}

TEST_F(RunFilesTest, WhatIsNoFileInPlaceOfTheRecordIsRefused) {
  fs::create_directory(record());
  expect_error([&] { RunRecord::read(directory()); }, ExitCode::kNoInput, {"run.json", "not a regular file"});
  fs::remove(record());
  fs::create_symlink("run.json", record());
  expect_error([&] { RunRecord::read(directory()); }, ExitCode::kNoInput, {"run.json"});
  fs::remove(record());
  fs::create_symlink("/dev/zero", record());
  expect_error([&] { RunRecord::read(directory()); }, ExitCode::kNoInput, {"run.json", "not a regular file"});
  fs::remove(record());
  EXPECT_EQ(RunRecord::read(directory()).informative(), Json::object()) << "absent";
}

// ---- texts

TextBatch some_texts() {
  return {.pattern = "list:2",
          .prompt_tokens = 40,
          .prefill_seconds = 0.125,
          .decoded_tokens = 3,
          .decode_seconds = 1e-7,
          .texts = {{.example = 0, .example_id = "first", .prompt_tokens = 40, .tokens = {5, 6, 7}, .stopped = true}}};
}

std::string said(const std::vector<TextBatch>& batches) {
  std::string text;
  for (const TextBatch& batch : batches) {
    text += batch.pattern + std::to_string(batch.prompt_tokens) + std::to_string(batch.prefill_seconds) +
            std::to_string(batch.decoded_tokens) + std::to_string(batch.decode_seconds * 1e9);
    for (const Text& t : batch.texts) {
      text += t.example_id + std::to_string(t.example) + std::to_string(t.stopped);
      for (const int32_t token : t.tokens) text += " " + std::to_string(token);
    }
  }
  return text;
}

TEST_F(RunFilesTest, NoticesAFlipInABatchOfTexts) {
  write_batch(UnitStore::texts(directory()), "key", some_texts());
  const fs::path file = only_file(UnitStore::texts(directory()).folder());
  const auto read = [&] {
    std::vector<std::string> notes;
    const std::string text = said(read_batches(UnitStore::texts(directory()), "key", notes));
    // What is passed over with a note is noticed; without one it must be there.
    if (text.empty() && !notes.empty()) fail(ExitCode::kBadData, notes.front());
    return text;
  };
  const auto size = static_cast<int64_t>(fs::file_size(file));
  EXPECT_GT(flip_bits(file, 0, size, read), 7 * size) << "all its bits";
}

TEST_F(RunFilesTest, ABatchOfAnOlderWinnowIsReadWithANote) {
  write_batch(UnitStore::texts(directory()), "key", some_texts());
  const fs::path file = only_file(UnitStore::texts(directory()).folder());
  std::ifstream in(file);
  std::string first;
  std::getline(in, first);
  const std::string rest{std::istreambuf_iterator<char>(in), {}};
  Json head = Json::parse(first);
  EXPECT_EQ(head.erase("head_sha256"), 1U);
  std::ofstream(file) << head.dump() << "\n" << rest;
  std::vector<std::string> notes;
  EXPECT_EQ(said(read_batches(UnitStore::texts(directory()), "key", notes)), said({some_texts()}));
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("1 batch(es) of texts are older"), std::string::npos) << notes[0];
}

}  // namespace
}  // namespace winnow::run
