// YAML files that nobody would write: reading them comes to an end, with a place in the file or a plan.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/yaml_file.h"
#include "jobs/sweep/cells.h"
#include "jobs/sweep/executors/slurm/site.h"
#include "tests/scratch.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

// A sweep of one cell, in which one line may be another.
class OddSweep : public ::testing::Test {
 protected:
  OddSweep() {
    fs::create_directories(root() / "m");
    std::ofstream(root() / "m/config.json") << "{}";
    std::ofstream(root() / "c.h5") << "x";
  }

  const fs::path& root() const { return scratch_.path(); }

  static std::string sweep(const std::string& name = "n", const std::string& more = "") {
    return "name: " + name + "\noutput: out\nmodels: [{name: m, path: m}]\ndatasets: [{name: d, data: c.h5}]\n" +
           "windows: [8]\n" + more;
  }

  // The lines of the refusal; empty for a plan.
  std::vector<std::string> problems(const std::string& text) const {
    try {
      sweep::parse_sweep(root() / "s.yaml", text);
    } catch (const sweep::SweepFileError& error) {
      for (const std::string& line : error.lines()) {
        EXPECT_TRUE(line.starts_with((root() / "s.yaml").string() + ":")) << line;
        EXPECT_EQ(one_line(line), line);
        EXPECT_LT(line.size(), 3000u);
      }
      return error.lines();
    }
    return {};
  }

  void expect_refused(const std::string& text, const std::string& place, const std::string& words) const {
    const std::vector<std::string> lines = problems(text);
    std::string all;
    bool is_there = false;
    for (const std::string& line : lines) {
      all += line + "\n";
      is_there =
          is_there || (line.find(":" + place + ": ") != std::string::npos && line.find(words) != std::string::npos);
    }
    EXPECT_TRUE(is_there) << place << " " << words << " in\n" << all;
  }

  ScratchDirectory scratch_;
};

TEST_F(OddSweep, LongValuesAreRefusedWithTheirLimit) {
  EXPECT_TRUE(problems(sweep()).empty());
  EXPECT_TRUE(problems(sweep(std::string(128, 'a'))).empty());
  expect_refused(sweep(std::string(129, 'a')), "1:7", "at most 128 characters");
  expect_refused(sweep(std::string(1'000'000, 'a')), "1:7", "(1000000 characters)");
  expect_refused(sweep("n", "layers: 0" + repeated(",0", 300'000) + "\n"), "6:9", "at most 32768 characters");
  expect_refused(sweep("n", "base: list:0" + repeated(",0", 100'000) + "\n"), "6:7", "at most 32768 characters");
  expect_refused(sweep("n", "tail_rows: " + std::string(1'000'000, '1') + "\n"), "6:12", "a whole number");
  expect_refused(sweep("n", "defaults: {time: " + std::string(1'000'000, '1') + "}\n"), "6:18", "at most 32");
  expect_refused(sweep("n", "defaults: {memory: " + std::string(1'000'000, '1') + "}\n"), "6:20", "at most 16");
  expect_refused(sweep("n", std::string(1000, 'k') + ": 1\n"), "6:1", "unknown key");
  expect_refused(sweep("n", "seeds: [" + repeated("1,", 300'000) + "]\n"), "6:8", "expected at most 2000");
  EXPECT_TRUE(problems(sweep("n", "layers: 0" + repeated(",0", 10'000) + "\n")).empty());
}

TEST_F(OddSweep, NamesThatAreFlagsAreRefused) {
  expect_refused(sweep("-x"), "1:7", "no dash or dot in front");
  std::string text = sweep();
  text.replace(text.find("name: m"), 7, "name: -x");
  expect_refused(text, "3:17", "no dash or dot in front");
  text = sweep();
  text.replace(text.find("name: d"), 7, "name: -x");
  expect_refused(text, "4:19", "no dash or dot in front");
  expect_refused(sweep("n", "output: -x\n"), "6:1", "given twice");
}

TEST_F(OddSweep, ASecondDocumentIsRefused) {
  expect_refused(sweep() + "---\nwindows: [9]\n", "7:1", "a second YAML document");
  EXPECT_TRUE(problems("---\n" + sweep()).empty());
  EXPECT_TRUE(problems(sweep() + "...\n").empty());
  EXPECT_TRUE(problems(sweep() + "---\n").empty());  // nothing is behind it
}

TEST_F(OddSweep, AliasesAndDepthAreBounded) {
  std::string bomb = "a0: &a0 [" + repeated("x,", 9) + "]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string one = std::to_string(i);
    bomb += "a" + one + ": &a" + one + " [" + repeated("*a" + std::to_string(i - 1) + ",", 9) + "]\n";
  }
  const std::vector<std::string> lines = problems(bomb);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find("values, aliases counted"), std::string::npos) << lines[0];
  EXPECT_FALSE(problems("models: &a [*a]\n").empty());
  for (const char* opening : {"[", "{a: ", "- ", "? "}) EXPECT_FALSE(problems(repeated(opening, 5000)).empty());
  EXPECT_FALSE(problems("name: " + repeated("[", 40) + repeated("]", 40)).empty());
  // An alias for what it is good for.
  EXPECT_TRUE(problems("name: &n night\noutput: out\nmodels: [{name: *n, path: m}]\n"
                       "datasets: [{name: d, data: c.h5}]\nwindows: [8]\n")
                  .empty());
}

TEST_F(OddSweep, OnlyTextIsRead) {
  expect_refused("name: n\xe9\n", "1:8", "not UTF-8");
  expect_refused("name: n\noutput: \xc0\xaf\n", "2:9", "not UTF-8");
  expect_refused("name: n\n# \xed\xa0\x80\n", "2:3", "not UTF-8");
  expect_refused(sweep() + "\x04\nwindows: [9]\n", "6:1", "control character");
  expect_refused(sweep() + std::string("\0", 1), "6:1", "control character");
  expect_refused("name: \"\\e[31mred\"\n", "1:7", "name is '?[31mred'");
  expect_refused("name: n\noutput: \"a\\u202eb\"\n", "2:9", "without control characters");
  EXPECT_TRUE(problems("\xef\xbb\xbf" + sweep()).empty());
  const std::string text = sweep();
  std::string utf16 = "\xff\xfe";
  for (const char c : text) utf16 += std::string(1, c) + std::string(1, '\0');
  EXPECT_TRUE(problems(utf16).empty());
}

TEST_F(OddSweep, TooManyCellsAndProblemsAreNotWorkedThrough) {
  std::string windows;
  for (int i = 1; i <= 2000; ++i) windows += std::to_string(i) + ",";
  std::string text = sweep("n", "sinks: [0," + windows + "]\n");
  expect_refused(text, "6:8", "expected at most 2000");
  text = sweep("n", "sinks: [" + windows + "]\n");
  text.replace(text.find("windows: [8]"), 12, "windows: [" + windows + "]");
  expect_refused(text, "1:1", "more than 100000 combinations");
  EXPECT_EQ(problems(repeated("[x]: 1\n", 1000)).size(), 200u);
}

TEST_F(OddSweep, WhatIsNoFileIsNotReadForEver) {
  const fs::path pipe = root() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const fs::path& path : {pipe, root(), fs::path("/dev/zero"), fs::path("/dev/null"), root() / "none"}) {
    expect_error([&] { sweep::read_sweep(path); }, ExitCode::kNoInput, {path.string(), "sweep file", "YAML"});
    expect_error([&] { slurm::parse_slurm_site(path); }, ExitCode::kNoInput, {path.string(), "slurm/README.md"});
  }
  expect_error([&] { sweep::read_sweep("/proc/self/mem"); }, ExitCode::kNoInput, {"/proc/self/mem"});
  std::ofstream(root() / "large") << std::string(kLargestYamlFile + 1, '#');
  expect_error([&] { sweep::read_sweep(root() / "large"); }, ExitCode::kBadData,
               {"large", std::to_string(kLargestYamlFile)});
}

TEST_F(OddSweep, SiteSettingsKeepTheSameRules) {
  const auto site = [&](const std::string& text) {
    std::ofstream(root() / "site.yaml", std::ios::binary) << text;
    slurm::parse_slurm_site(root() / "site.yaml");
  };
  site("partition: gpu\n");
  const std::string place = (root() / "site.yaml").string();
  expect_error([&] { site("partition: gpu\n---\naccount: a\n"); }, ExitCode::kUsage, {place + ":3:1", "second"});
  expect_error([&] { site("partition: \xff\n"); }, ExitCode::kUsage, {place + ":1:12", "UTF-8"});
  expect_error([&] { site("partition: " + std::string(5000, 'a')); }, ExitCode::kUsage, {place + ":1:12", "4096"});
}

// A good file with a few bytes or lines changed at random, the same ones in every run: a plan, or lines with a place.
TEST_F(OddSweep, RandomChangesAreAPlanOrAnErrorWithAPlace) {
  std::ifstream in(std::string(WINNOW_TESTS_DIR) + "/fuzz/corpus/sweep/good");
  const std::string good{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  ASSERT_FALSE(good.empty());
  const std::string marks =
      "[]{}:,-&*!|>'\"#%@?~\n\t \\\x01\x80\xff"
      "0a";
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  int n_refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (std::size_t change = 0; change <= below(4); ++change) {
      const std::size_t at = below(text.size());
      switch (below(5)) {
        case 0:
          text[at] = marks[below(marks.size())];
          break;
        case 1:
          text.insert(at, 1, marks[below(marks.size())]);
          break;
        case 2:
          text.erase(at, 1 + below(8));
          break;
        case 3:
          text.insert(at, text.substr(below(text.size()), below(40)));
          break;
        default:
          text.insert(at, repeated(std::string(1, marks[below(marks.size())]), 1 + static_cast<int>(below(300))));
      }
    }
    n_refused += problems(text).empty() ? 0 : 1;
  }
  EXPECT_GT(n_refused, 1000);
}

}  // namespace
}  // namespace winnow
