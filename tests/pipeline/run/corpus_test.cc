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
    }
    file.commit();
    return path;
  }
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

TEST(Corpus, HashChangesWithTheContent) {
  const ScratchDirectory scratch;
  Draft draft;
  const std::string before = read_corpus(draft.write(scratch.path() / "c.h5"), kVocab).sha256;
  EXPECT_EQ(read_corpus(draft.write(scratch.path() / "d.h5"), kVocab).sha256, before);
  draft.tokens[0] = 42;
  EXPECT_NE(read_corpus(draft.write(scratch.path() / "c.h5"), kVocab).sha256, before);
}

struct BadCase {
  const char* name;
  std::function<void(Draft&)> spoil;
  std::vector<std::string> words;
};

std::vector<BadCase> bad_cases() {
  return {
      {"wrong format", [](Draft& d) { d.format = "something-else"; }, {"format", "something-else"}},
      {"no format", [](Draft& d) { d.format.reset(); }, {"format"}},
      {"wrong version", [](Draft& d) { d.version = 2; }, {"format_version", "2"}},
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
