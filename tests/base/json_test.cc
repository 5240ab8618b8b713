// JSON of strangers: words of Python's, and a time that grows with the length of the text and no faster.

#include "base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <limits>

#include "base/text_file.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "tests/model/model_files.h"

namespace winnow {
namespace {

using testing::expect_error;
using testing::safetensors_image;
using testing::TempDir;

// Processor time of this thread alone: other processes do not count.
double seconds(const std::function<void()>& action) {
  const auto now = [] {
    struct timespec time {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  action();
  return now() - begin;
}

// `action(n)` must not take much more than ten times as long for ten times as much: with a step that is quadratic it
// takes a hundred times as long. Memory that is no more in the caches is dearer, too, so that there is room in between.
void expect_linear(const std::function<std::function<void()>(int64_t)>& prepare) {
  constexpr int64_t kSmall = 4'000;
  constexpr double kMostTimes = 40.0;
  const auto fastest = [&](int64_t n) {
    const std::function<void()> action = prepare(n);
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 3; ++i) least = std::min(least, seconds(action));
    return least;
  };
  EXPECT_LT(fastest(10 * kSmall), kMostTimes * fastest(kSmall));
}

std::string members(int64_t n, const std::string& value) {
  std::string text;
  for (int64_t i = 0; i < n; ++i) text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":" + value;
  return text;
}

TEST(Json, ReadsObjectsOfManyMembersInLinearTime) {
  expect_linear([](int64_t n) {
    const std::string text = "{" + members(n, R"({"a":[1],"b":"c"})") + "}";
    return [text, n] { EXPECT_EQ(parse_json(text, "f").size(), static_cast<std::size_t>(n)); };
  });
  expect_linear([](int64_t n) {
    const std::string text = "{" + members(n, R"({"a":[NaN,-Infinity]})") + "}";
    return [text, n] {
      EXPECT_EQ(parse_ordered_json(text, "f", JsonDialect::kPython).size(), static_cast<std::size_t>(n));
    };
  });
  expect_linear([](int64_t n) {
    const std::string text = "[" + std::string(static_cast<std::size_t>(4 * n), ' ') + members(n, "1") + "}";
    return [text] { expect_error(ExitCode::kBadData, {"not JSON"}, [&] { parse_json(text, "f"); }); };
  });
}

// Of size 0, all at one place: the order in the file does not tell them apart.
TEST(Json, ReadsHeadersOfManyTensorsInLinearTime) {
  expect_linear([](int64_t n) {
    const std::string entry = R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
    const std::string image = safetensors_image("{" + members(n, entry) + "}", "");
    return [image, n] {
      const auto tensors = model::parse_safetensors(std::as_bytes(std::span(image)), "f");
      EXPECT_EQ(tensors.size(), static_cast<std::size_t>(n));
    };
  });
}

TEST(Json, ReadsIndicesOfManyTensorsInLinearTime) {
  const TempDir dir;
  expect_linear([&](int64_t n) {
    const std::string entry = R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
    const std::filesystem::path model = dir.path() / std::to_string(n);
    std::filesystem::create_directories(model);
    dir.write(std::to_string(n) + "/a", safetensors_image("{" + members(n, entry) + "}", ""));
    dir.write(std::to_string(n) + "/model.safetensors.index.json", R"({"weight_map":{)" + members(n, "\"a\"") + "}}");
    return [model, n] { EXPECT_EQ(model::Checkpoint(model).tensors().size(), static_cast<std::size_t>(n)); };
  });
}

TEST(Json, ReadsWordsOfPython) {
  const std::string text = R"({"a":[NaN,Infinity, -Infinity,1,-2,3.5],"b":"NaN, \"Infinity","NaN":{"c":Infinity}})";
  const nlohmann::ordered_json json = parse_ordered_json(text, "f", JsonDialect::kPython);
  EXPECT_TRUE(std::isnan(json["a"][0].get<double>()));
  EXPECT_EQ(json["a"][1], std::numeric_limits<double>::infinity());
  EXPECT_EQ(json["a"][2], -std::numeric_limits<double>::infinity());
  EXPECT_EQ(json["a"][3], 1);
  EXPECT_EQ(json["a"][4], -2);
  EXPECT_EQ(json["a"][5], 3.5);
  EXPECT_EQ(json["b"], "NaN, \"Infinity");
  EXPECT_EQ(json["NaN"]["c"], std::numeric_limits<double>::infinity());
  EXPECT_EQ(parse_json("-Infinity", "f", JsonDialect::kPython), -std::numeric_limits<double>::infinity());
  for (const char* wrong : {"nan", "inf", "+Infinity", "--Infinity", "1NaN", "NaN1", "Infinity.", "[NaN Infinity]",
                            "Na", "{NaN:1}", "\"NaN", "\"\\"}) {
    expect_error(ExitCode::kBadData, {"f: not JSON"}, [&] { parse_json(wrong, "f", JsonDialect::kPython); });
  }
  // What reads safetensors knows none of them.
  expect_error(ExitCode::kBadData, {"f: not JSON: wrong at line 1, column 7"}, [&] { parse_json(text, "f"); });
}

TEST(Json, WritesWhatPythonReads) {
  const std::string text = R"({"z":[0.0,Infinity,-Infinity,NaN],"a":{},"b":[],"c":{"d":"é\n","e":null},"f":1e-06})";
  const nlohmann::ordered_json json = parse_ordered_json(text, "f", JsonDialect::kPython);
  EXPECT_EQ(python_json(json),
            "{\n  \"z\": [\n    0.0,\n    Infinity,\n    -Infinity,\n    NaN\n  ],\n  \"a\": {},\n  \"b\": [],\n"
            "  \"c\": {\n    \"d\": \"é\\n\",\n    \"e\": null\n  },\n  \"f\": 1e-06\n}");
  nlohmann::ordered_json finite = json;
  finite.erase("z");
  EXPECT_EQ(python_json(finite), finite.dump(2));
}

TEST(Json, BoundsTheSizeOfATextFile) {
  const TempDir dir;
  const auto file = dir.write("f", std::string(100'000, ' '));
  EXPECT_EQ(read_text(file, 100'000).size(), 100'000U);
  expect_error(ExitCode::kBadData, {"expected at most"}, [&] { read_text(file, 99'999); });
  expect_error(ExitCode::kNoInput, {"cannot be read", "not a regular file"}, [&] { read_text(dir.path(), 10); });
}

}  // namespace
}  // namespace winnow
