#include "pipeline/run/corpus.h"

#include <fstream>
#include <functional>
#include <optional>

#include "results/storage/hdf5.h"
#include "tests/scratch.h"

namespace winnow::run {
namespace {

constexpr int64_t kVocab = 100;

// A calibration file in the making; each field can be spoilt.
struct Draft {
  std::optional<std::string> format = "winnow-calibration";
  int64_t version = 1;
  std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 99, 0};
  std::vector<int64_t> offsets = {0, 4, 9};
  std::vector<int64_t> answer_start = {2, 4};
  std::vector<std::string> example_id = {"one", "two"};
  std::optional<std::vector<std::string>> source;
  // Of format_version 2.
  std::vector<std::string> task = {"niah", "qa"};
  std::vector<std::string> metric = {"contains_all", "token_f1"};
  std::vector<std::string> length_bin = {"4k", "8k"};
  std::vector<std::string> gold_answer = {"7, 8", "Rome"};
  std::vector<std::string> answer_prefix = {" Answer:", ""};
  std::vector<std::string> metric_options = {"", "{}"};
  std::vector<std::string> references = {"7", "8", "Rome"};
  std::vector<int64_t> reference_offsets = {0, 2, 3};
  std::string left_out;    // name of a data set that is not written
  std::string wrong_type;  // name of a data set that is written with another type
  bool two_dimensional = false;

  template <typename T>
  void put(storage::Group& root, const std::string& name, const std::vector<T>& values) const {
    const auto n = static_cast<int64_t>(values.size());
    if (name == left_out) return;
    if (name == wrong_type) {
      root.write<double>(name, std::vector<double>(values.size(), 1.0), {n});
    } else {
      root.write<T>(name, values, {n});
    }
  }

  void put_tasks(storage::Group& root) const {
    put(root, "task", task);
    put(root, "metric", metric);
    put(root, "length_bin", length_bin);
    put(root, "gold_answer", gold_answer);
    put(root, "answer_prefix", answer_prefix);
    put(root, "metric_options", metric_options);
    put(root, "references", references);
    put(root, "reference_offsets", reference_offsets);
  }

  std::filesystem::path write(const std::filesystem::path& path) const {
    storage::File file = storage::File::create(path);
    {
      storage::Group root = file.root();
      if (format) root.set_attribute<std::string>(".", "format", *format);
      root.set_attribute<int64_t>(".", "format_version", version);
      if (two_dimensional) {
        root.write<int32_t>("tokens", tokens, {static_cast<int64_t>(tokens.size()), 1});
      } else {
        put(root, "tokens", tokens);
      }
      put(root, "offsets", offsets);
      put(root, "answer_start", answer_start);
      put(root, "example_id", example_id);
      if (source) put(root, "source", *source);
      if (version == 2) put_tasks(root);
    }
    file.commit();
    return path;
  }
};

struct BadCase {
  const char* name;
  std::function<void(Draft&)> spoil;
  std::vector<std::string> words;
};

TEST(Corpus, ReadsWhatTheFormatSays) {
  const ScratchDirectory scratch;
  Draft draft;
  draft.source = {"book", "web"};
  const Corpus corpus = read_corpus(draft.write(scratch.path() / "c.h5"), kVocab);
  ASSERT_EQ(corpus.size(), 2);
  const auto second = corpus.example(1);
  EXPECT_EQ(std::vector<int32_t>(second.begin(), second.end()), (std::vector<int32_t>{5, 6, 7, 99, 0}));
  EXPECT_EQ(corpus.answer_start, draft.answer_start);
  EXPECT_EQ(corpus.example_id[1], "two");
  EXPECT_EQ(corpus.source[0], "book");
  EXPECT_EQ(corpus.sha256.size(), 64U);
}

TEST(Corpus, ReadsHowTextsAreJudged) {
  const ScratchDirectory scratch;
  Draft draft;
  EXPECT_TRUE(read_corpus(draft.write(scratch.path() / "c.h5"), kVocab).task.empty());
  draft.version = 2;
  const Corpus corpus = read_corpus(draft.write(scratch.path() / "d.h5"), kVocab);
  EXPECT_EQ(corpus.task, draft.task);
  EXPECT_EQ(corpus.metric, draft.metric);
  EXPECT_EQ(corpus.length_bin, draft.length_bin);
  EXPECT_EQ(corpus.answer_start, draft.answer_start);
}

TEST(Corpus, RefusesEveryMalformedFileOfVersion2) {
  const std::vector<BadCase> cases = {
      {"no task", [](Draft& d) { d.left_out = "task"; }, {"task"}},
      {"no metric", [](Draft& d) { d.left_out = "metric"; }, {"metric"}},
      {"no bins", [](Draft& d) { d.left_out = "length_bin"; }, {"length_bin"}},
      {"no gold answer", [](Draft& d) { d.left_out = "gold_answer"; }, {"gold_answer"}},
      {"no prefix", [](Draft& d) { d.left_out = "answer_prefix"; }, {"answer_prefix"}},
      {"no options", [](Draft& d) { d.left_out = "metric_options"; }, {"metric_options"}},
      {"no references", [](Draft& d) { d.left_out = "references"; }, {"references"}},
      {"no offsets", [](Draft& d) { d.left_out = "reference_offsets"; }, {"reference_offsets"}},
      {"metric of type double", [](Draft& d) { d.wrong_type = "metric"; }, {"metric", "string"}},
      {"offsets of type double", [](Draft& d) { d.wrong_type = "reference_offsets"; }, {"reference_offsets", "int64"}},
      {"too few tasks", [](Draft& d) { d.task = {"niah"}; }, {"/task has 1", "expected 2"}},
      {"too many metrics", [](Draft& d) { d.metric.emplace_back("exact"); }, {"/metric has 3", "expected 2"}},
      {"empty metric", [](Draft& d) { d.metric[1].clear(); }, {"example 1", "\"two\"", "/metric is empty"}},
      {"empty gold answer", [](Draft& d) { d.gold_answer[0].clear(); }, {"example 0", "/gold_answer is empty"}},
      {"an example without reference",
       [](Draft& d) {
         d.reference_offsets = {0, 3, 3};
       },
       {"example 1", "do not rise", "3"}},
      {"reference offsets overrun",
       [](Draft& d) {
         d.reference_offsets = {0, 2, 4};
       },
       {"/reference_offsets", "3 entries of /references"}},
      {"reference offsets for fewer examples",
       [](Draft& d) {
         d.reference_offsets = {0, 3};
       },
       {"/reference_offsets", "expected 3 entries"}},
      {"reference offsets far away",
       [](Draft& d) {
         d.reference_offsets = {0, INT64_MAX, 3};
       },
       {"example 1", "do not rise"}},
  };
  const ScratchDirectory scratch;
  for (const BadCase& bad : cases) {
    SCOPED_TRACE(bad.name);
    Draft draft;
    draft.version = 2;
    bad.spoil(draft);
    const auto path = draft.write(scratch.path() / "bad.h5");
    std::vector<std::string> words = bad.words;
    words.push_back("bad.h5");
    expect_error([&] { read_corpus(path, kVocab); }, ExitCode::kBadData, words);
  }
}

TEST(Corpus, HashChangesWithTheContent) {
  const ScratchDirectory scratch;
  Draft draft;
  const std::string before = read_corpus(draft.write(scratch.path() / "c.h5"), kVocab).sha256;
  EXPECT_EQ(read_corpus(draft.write(scratch.path() / "d.h5"), kVocab).sha256, before);
  draft.tokens[0] = 42;
  EXPECT_NE(read_corpus(draft.write(scratch.path() / "c.h5"), kVocab).sha256, before);
}

std::vector<BadCase> bad_cases() {
  return {
      {"wrong format", [](Draft& d) { d.format = "something-else"; }, {"format", "something-else"}},
      {"no format", [](Draft& d) { d.format.reset(); }, {"format"}},
      {"wrong version", [](Draft& d) { d.version = 3; }, {"format_version", "1 to 2", "found 3"}},
      {"no tokens", [](Draft& d) { d.left_out = "tokens"; }, {"tokens"}},
      {"no offsets", [](Draft& d) { d.left_out = "offsets"; }, {"offsets"}},
      {"no answer_start", [](Draft& d) { d.left_out = "answer_start"; }, {"answer_start"}},
      {"no example_id", [](Draft& d) { d.left_out = "example_id"; }, {"example_id"}},
      {"tokens of type double", [](Draft& d) { d.wrong_type = "tokens"; }, {"tokens", "int32", "float64"}},
      {"offsets of type double", [](Draft& d) { d.wrong_type = "offsets"; }, {"offsets", "int64", "float64"}},
      {"starts of type double", [](Draft& d) { d.wrong_type = "answer_start"; }, {"answer_start", "int64"}},
      {"ids of type double", [](Draft& d) { d.wrong_type = "example_id"; }, {"example_id", "string"}},
      {"tokens with two dimensions", [](Draft& d) { d.two_dimensional = true; }, {"tokens"}},
      {"empty set",
       [](Draft& d) {
         d.tokens.clear();
         d.offsets = {0};
         d.answer_start.clear();
         d.example_id.clear();
       },
       {"no example"}},
      {"offsets fall",
       [](Draft& d) {
         d.offsets = {0, 9, 4};
       },
       {"example 1", "\"two\"", "9", "4"}},
      {"offsets stand still",
       [](Draft& d) {
         d.offsets = {0, 0, 9};
       },
       {"example 0", "do not rise"}},
      {"offsets overrun",
       [](Draft& d) {
         d.offsets = {0, 4, 10};
       },
       {"example 1", "10", "9"}},
      {"offsets overrun by far",
       [](Draft& d) {
         d.offsets = {0, INT64_MAX - 1, INT64_MAX};
       },
       {"example 0", "beyond"}},
      {"offsets end early",
       [](Draft& d) {
         d.offsets = {0, 4, 8};
       },
       {"8", "9"}},
      {"offsets start late",
       [](Draft& d) {
         d.offsets = {1, 4, 9};
       },
       {"offsets[0]", "1"}},
      {"offsets start below 0",
       [](Draft& d) {
         d.offsets = {-1, 4, 9};
       },
       {"offsets[0]", "-1"}},
      {"too few offsets",
       [](Draft& d) {
         d.offsets = {0, 9};
       },
       {"/offsets", "2", "3"}},
      {"too few ids", [](Draft& d) { d.example_id = {"one"}; }, {"/example_id", "1", "2"}},
      {"too many sources",
       [](Draft& d) {
         d.source = {"a", "b", "c"};
       },
       {"/source", "3", "2"}},
      {"empty source", [](Draft& d) { d.source.emplace(); }, {"/source", "0", "2"}},
      {"leading answer",
       [](Draft& d) {
         d.answer_start = {0, 4};
       },
       {"example 0", "\"one\"", "answer_start is 0"}},
      {"answer before the example",
       [](Draft& d) {
         d.answer_start = {-3, 4};
       },
       {"example 0", "-3"}},
      {"empty answer",
       [](Draft& d) {
         d.answer_start = {2, 5};
       },
       {"example 1", "\"two\"", "5", "empty"}},
      {"token beyond the vocabulary", [](Draft& d) { d.tokens[7] = 100; }, {"example 1", "token 3 is 100", "99"}},
      {"negative token", [](Draft& d) { d.tokens[1] = -1; }, {"example 0", "token 1 is -1"}},
      {"duplicate ids",
       [](Draft& d) {
         d.example_id = {"one", "one"};
       },
       {"example 1", "\"one\"", "example 0"}},
      {"an id of two lines",
       [](Draft& d) {
         d.example_id = {"one\nline", "two"};
         d.tokens[1] = -1;
       },
       {"example 0 (id \"one\\nline\")", "token 1 is -1"}},
  };
}

TEST(Corpus, AChangeOfTheContentIsFoundAndNoOther) {
  const ScratchDirectory scratch;
  Draft draft;
  const auto path = draft.write(scratch.path() / "c.h5");
  const Corpus corpus = read_corpus(path, kVocab);
  EXPECT_NO_THROW(check_unchanged(corpus));
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now());
  EXPECT_NO_THROW(check_unchanged(corpus));
  std::filesystem::copy_file(path, scratch.path() / "copy.h5");
  std::filesystem::rename(scratch.path() / "copy.h5", path);
  EXPECT_NO_THROW(check_unchanged(corpus));
  draft.tokens.front() = 7;
  draft.write(path);
  expect_error([&] { check_unchanged(corpus); }, ExitCode::kBadData, {path.string(), "has changed"});
  std::filesystem::remove(path);
  EXPECT_NO_THROW(check_unchanged(corpus));
}

TEST(Corpus, RefusesEveryMalformedFileAndNamesThePlace) {
  const ScratchDirectory scratch;
  for (const BadCase& bad : bad_cases()) {
    SCOPED_TRACE(bad.name);
    Draft draft;
    bad.spoil(draft);
    const auto path = draft.write(scratch.path() / "bad.h5");
    std::vector<std::string> words = bad.words;
    words.push_back("bad.h5");
    expect_error([&] { read_corpus(path, kVocab); }, ExitCode::kBadData, words);
  }
}

TEST(Corpus, RefusesWhatIsNoHdf5) {
  const ScratchDirectory scratch;
  expect_error([&] { read_corpus(scratch.path() / "absent.h5", kVocab); }, ExitCode::kNoInput, {"absent.h5"});
  const auto text = scratch.path() / "text.h5";
  std::ofstream(text) << "{\"tokens\": [1, 2, 3]}";
  expect_error([&] { read_corpus(text, kVocab); }, ExitCode::kBadData, {"text.h5"});
  const auto whole = Draft().write(scratch.path() / "whole.h5");
  std::filesystem::resize_file(whole, std::filesystem::file_size(whole) / 2);
  expect_error([&] { read_corpus(whole, kVocab); }, ExitCode::kBadData, {"whole.h5"});
}

}  // namespace
}  // namespace winnow::run
