// Checksums: what a flipped bit, a cut or another program does to the files that winnow writes.
#include "base/checksum.h"

#include <hdf5.h>

#include <fstream>
#include <functional>

#include "base/sha256.h"
#include "results/calibration/json.h"
#include "results/calibration/store.h"
#include "results/calibration/table.h"
#include "results/campaign/collection.h"
#include "results/campaign/store.h"
#include "results/campaign/table.h"
#include "results/evaluation/store.h"
#include "results/evaluation/table.h"
#include "results/search/results.h"
#include "results/search/store.h"
#include "results/search/table.h"
#include "results/selection/selection.h"
#include "results/storage/hdf5.h"
#include "tests/bit_flips.h"
#include "tests/results/calibration/example_results.h"
#include "tests/results/evaluation/example_evaluation.h"
#include "tests/scratch.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFlips = 1000;
constexpr auto kLast = static_cast<int64_t>(kChecksumBytes);

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

calibration::Results small_results() {
  calibration::Results results = example_results();
  results.provenance.set("run_json", std::string(100, 'j'), "run.json as text");
  return results;
}

search::SearchResults some_search() {
  const auto figures = [](double nll) {
    return search::ExampleFigures{
        .nll = {nll - 0.25, nll + 0.25}, .exact_match = {1, 0}, .token_accuracy = {1, 0.5}, .kl = {}};
  };
  search::SearchResults results;
  results.plan = {.method = search::SearchMethod::kGreedyForward,
                  .objective = search::Objective::kNll,
                  .n_layers = 3,
                  .keep = 2,
                  .beam = 1};
  results.example_id = {"first", "second"};
  results.patterns = {{"list:0", {false, true, true}, figures(1), {}},
                      {"list:1", {true, false, true}, figures(2), {}},
                      {"list:0,1", {false, false, true}, figures(3), {}}};
  results.best = {0, 2};
  return results;
}

campaign::Collection some_collection() {
  campaign::CollectedCell cell;
  cell.label = cell.name = "m-d";
  cell.decode = "windowed";
  cell.window = cell.window_keys = 64;
  cell.summary = campaign::summarize(small_results());
  return {.sweep = "night", .version = "1.2", .cells = {cell}};
}

class ChecksumTest : public ::testing::Test {
 protected:
  fs::path at(const std::string& name) const { return scratch_.path() / name; }
  // Every bit of an HDF5 file counts: no flip may be read at all.
  void expect_all_refused(const fs::path& path, const std::function<std::string()>& read) {
    EXPECT_EQ(check_hdf5(path), Checksum::kMatches);
    EXPECT_EQ(flip_bits(path, kFlips, kLast, read), kFlips + 8 * kLast);
  }

 private:
  ScratchDirectory scratch_;
};

TEST_F(ChecksumTest, OfHdf5IsTheSha256OfAllBytesBeforeIt) {
  calibration::write_results(at("a.h5"), small_results());
  const std::string bytes = bytes_of(at("a.h5"));
  const std::string content = bytes.substr(0, bytes.size() - kChecksumBytes);
  EXPECT_EQ(bytes.substr(content.size()), "\nwinnow sha256 " + sha256_of(content) + "\n");
}

TEST_F(ChecksumTest, NoticesEveryFlipInAResult) {
  calibration::write_results(at("a.h5"), small_results());
  expect_all_refused(at("a.h5"), [&] { return to_json(calibration::read_results(at("a.h5"))); });
}

TEST_F(ChecksumTest, NoticesEveryFlipInAnEvaluation) {
  evaluation::write_evaluation(at("a.h5"), example_evaluation(9, true));
  expect_all_refused(at("a.h5"), [&] { return to_json(evaluation::read_evaluation(at("a.h5"))); });
}

TEST_F(ChecksumTest, NoticesEveryFlipInASearch) {
  search::write_searches(at("a.h5"), {some_search()}, small_results().provenance);
  expect_all_refused(at("a.h5"), [&] {
    storage::Provenance provenance;
    return std::to_string(search::read_found(at("a.h5"), provenance).front().full_layers.size()) +
           provenance.text("command");
  });
}

TEST_F(ChecksumTest, NoticesEveryFlipInACollection) {
  const campaign::Collection collection = some_collection();
  campaign::write_collection(at("a.h5"), collection, campaign::rank_agreement(collection.cells));
  expect_all_refused(at("a.h5"), [&] {
    return std::to_string(storage::File::open(at("a.h5")).root().read<double>("mean_delta_nll", 2).values.front());
  });
}

TEST_F(ChecksumTest, NoticesAFlipInASelection) {
  selection::Selection selection;
  selection.method = "nll";
  selection.keep = 3;
  selection.layers = {1, 4, 5};
  selection.n_layers = 12;
  selection.window = selection.window_keys = 96;
  selection.sinks = 4;
  selection.decode = "windowed";
  selection.model = "/models/\"one\"";
  selection.model_type = "qwen3";
  selection.checkpoint_sha256 = std::string(64, 'a');
  selection.provenance.set("share", 0.1, "");
  selection.provenance.set("n_examples", int64_t{64}, "");
  selection::write_selection(at("s.json"), selection);
  const auto size = static_cast<int64_t>(fs::file_size(at("s.json")));
  // All its bits: it is small.
  EXPECT_GT(flip_bits(at("s.json"), 0, size, [&] { return to_json(selection::read_selection(at("s.json"))); }),
            7 * size);
}

TEST_F(ChecksumTest, OfASelectionDoesNotDependOnItsLayout) {
  selection::Selection selection;
  selection.method = "list:0";
  selection.keep = 1;
  selection.layers = {0};
  selection.n_layers = 2;
  selection.window = selection.window_keys = 8;
  selection.decode = "full";
  selection.checkpoint_sha256 = std::string(64, '0');
  auto json = nlohmann::json::parse(to_json(selection));
  EXPECT_TRUE(selection::parse_selection(json.dump(), "s").has_checksum) << "sorted, on one line";
  json["note"] = "of another program";
  expect_error([&] { selection::parse_selection(json.dump(), "s.json"); }, ExitCode::kBadData,
               {"s.json", "does not match its content_sha256", "delete that key"});
  json.erase(kChecksumKey);
  EXPECT_FALSE(selection::parse_selection(json.dump(), "s").has_checksum);
  json[kChecksumKey] = 5;
  expect_error([&] { selection::parse_selection(json.dump(), "s.json"); }, ExitCode::kBadData, {"content_sha256"});
}

// json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) of Python 3.
TEST_F(ChecksumTest, AnObjectsTextIsThatOfPython) {
  const nlohmann::json object = {
      {"b", {4.7075213249023236, 1e15, 1e16, 1.5e-5, 0.0001, -0.0, 123.0, 5e-324, 0.25}},
      {"a", {{"\u00e9\n", -7}, {"no", nullptr}, {"yes", true}, {"empty", nlohmann::json::object()}}},
      {kChecksumKey, "left out"}};
  const std::string text =
      "{\"a\":{\"empty\":{},\"no\":null,\"yes\":true,\"\u00e9\\n\":-7},"
      "\"b\":[4.707521324902324,1000000000000000.0,1e+16,1.5e-05,0.0001,-0.0,123.0,5e-324,0.25]}";
  EXPECT_EQ(json_checksum(object), sha256_of(text));
}

TEST_F(ChecksumTest, AnObjectWithTheChecksumOfItsDumpIsWhole) {
  nlohmann::json object = {{"x", 4.7075213249023236}};
  object[kChecksumKey] = sha256_of(nlohmann::json{{"x", 4.7075213249023236}}.dump());
  EXPECT_NE(object[kChecksumKey], json_checksum(object));
  EXPECT_EQ(check_json(object, "x.json", "write it anew"), Checksum::kMatches);
  object["x"] = 4.7;
  expect_error([&] { check_json(object, "x.json", "write it anew"); }, ExitCode::kBadData, {"x.json"});
}

TEST_F(ChecksumTest, ACutFileIsRefusedAndOneWithoutAChecksumIsRead) {
  calibration::write_results(at("a.h5"), small_results());
  const std::string bytes = bytes_of(at("a.h5"));
  const auto read = [&](std::size_t size) {
    write_bytes(at("b.h5"), bytes.substr(0, size));
    return calibration::read_results(at("b.h5"));
  };
  for (std::size_t cut = 1; cut < kChecksumBytes; ++cut) {
    SCOPED_TRACE(cut);
    expect_error([&] { read(bytes.size() - cut); }, ExitCode::kBadData, {"b.h5", "cut short or damaged"});
  }
  // What is left is the file as an older winnow wrote it.
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(to_json(read(bytes.size() - kChecksumBytes)), to_json(small_results()));
  const std::string note = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(note.find("winnow: note: " + at("b.h5").string() + ": has no checksum"), std::string::npos) << note;
  EXPECT_EQ(note.find('\n'), note.size() - 1);
  expect_error([&] { read(bytes.size() - kChecksumBytes - 1); }, ExitCode::kBadData, {"b.h5", "cut short or damaged"});
}

// As h5py does it in mode "r+": such a file has no checksum rather than a wrong one.
TEST_F(ChecksumTest, AnotherProgramThatWritesToTheFileTakesTheChecksumAway) {
  calibration::write_results(at("a.h5"), small_results());
  const hid_t file = H5Fopen(at("a.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const hid_t group = H5Gcreate2(file, "notes", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Gclose(group);
  ASSERT_GE(H5Fclose(file), 0);
  EXPECT_EQ(check_hdf5(at("a.h5")), Checksum::kAbsent);
  const calibration::Results read = calibration::read_results(at("a.h5"));
  EXPECT_EQ(to_json(read), to_json(small_results()));
  calibration::write_results(at("a.h5"), read);
  EXPECT_EQ(check_hdf5(at("a.h5")), Checksum::kMatches);
}

TEST_F(ChecksumTest, ForeignFilesHaveNone) {
  write_bytes(at("empty"), "");
  write_bytes(at("text"), std::string(200, 'x'));
  EXPECT_EQ(check_hdf5(at("empty")), Checksum::kAbsent);
  EXPECT_EQ(check_hdf5(at("text")), Checksum::kAbsent);
  EXPECT_EQ(check_hdf5(at("")), Checksum::kAbsent) << "a folder";
  EXPECT_EQ(check_hdf5(at("absent")), Checksum::kAbsent);
}

}  // namespace
}  // namespace winnow
