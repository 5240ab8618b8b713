// The command line's frame: config files, near words, programs as verbs, the check of the processor.
#include <gtest/gtest.h>
#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/strings.h"
#include "jobs/cli/config_file.h"
#include "jobs/cli/external_verb.h"
#include "jobs/cli/flags.h"
#include "jobs/cli/processor.h"
#include "jobs/program.h"
#include "tests/scratch.h"

namespace winnow::cli {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// A verb with one flag of each kind.
class ConfigFile : public ::testing::Test {
 protected:
  ConfigFile() {
    verb_.add_option("--window,-w", window_, "");
    verb_.add_option("--layers", layers_, "");
    verb_.add_option("--control", controls_, "").one_value_each();
    verb_.add_flag("--json", json_, "");
    verb_.add_unread("--config", "");
  }

  std::string write(const std::string& text) {
    const fs::path path = scratch_.path() / "flags.yaml";
    std::ofstream(path) << text;
    return path.string();
  }

  Words expand(const std::string& text, Words more = {}) {
    Words arguments = {"--config", write(text)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Words all = with_config_file(verb_, arguments);
    EXPECT_GE(all.size(), arguments.size());
    all.resize(all.size() - arguments.size());  // what the file added, which comes first
    return all;
  }

  void expect_refused(const std::string& text, const Words& words) {
    expect_error([&] { expand(text); }, ExitCode::kUsage, words);
  }

  ScratchDirectory scratch_;
  CommandLine line_{"", "", "0"};
  Verb verb_ = line_.program().add_subcommand("measure", "");
  int window_ = 0;
  std::string layers_;
  Words controls_;
  bool json_ = false;
};

TEST_F(ConfigFile, GivesFlagsUnderTheirNames) {
  EXPECT_EQ(expand("window: 2048\nlayers: 0-3,7\njson: true\n"), (Words{"--window=2048", "--layers=0-3,7", "--json"}));
}

TEST_F(ConfigFile, ListsBecomeRepeatedFlagsOrOneList) {
  EXPECT_EQ(expand("control: [a=a.h5, b=b.h5]\nlayers: [1, 4]\n"),
            (Words{"--control=a=a.h5", "--control=b=b.h5", "--layers=1,4"}));
}

TEST_F(ConfigFile, FlagsOfTheCommandLineWin) {
  EXPECT_EQ(expand("window: 2048\nlayers: all\n", {"--window", "16"}), (Words{"--layers=all"}));
  EXPECT_EQ(expand("window: 2048\n", {"--window=16"}), Words{});
  EXPECT_EQ(expand("window: 2048\n", {"-w", "16"}), Words{});
}

TEST_F(ConfigFile, AFalseFlagIsNotGiven) { EXPECT_EQ(expand("json: false\n"), Words{}); }

TEST_F(ConfigFile, WithoutConfigNothingChanges) {
  const Words arguments = {"--window", "3", "--", "--config", "absent.yaml"};
  EXPECT_EQ(with_config_file(verb_, arguments), arguments);
}

TEST_F(ConfigFile, RefusesUnknownKeysWithLineAndColumn) {
  expect_refused("layers: 1\n  \nwindw: 3\n", {"flags.yaml:3:1:", "no flag 'windw'", "did you mean window?"});
  expect_refused("config: other.yaml\n", {"flags.yaml:1:1:", "no flag 'config'"});
}

TEST_F(ConfigFile, RefusesWhatIsNoMapOfFlags) {
  expect_refused("- window\n", {"flags.yaml:1:1:", "NAME: VALUE"});
  expect_refused("window: 3\nlayers: [1, \n", {"flags.yaml:", "not YAML"});
  expect_refused("window:\n", {"flags.yaml:1:1:", "window needs a value"});
  expect_refused("window: {a: 1}\n", {"flags.yaml:1:9:", "window needs a value"});
  expect_refused("layers: [[1], 2]\n", {"flags.yaml:1:10:", "no plain value"});
  expect_refused("json: maybe\n", {"flags.yaml:1:7:", "json is true or false"});
  expect_refused("window: 1\nwindow: 2\n", {"flags.yaml:2:1:", "given twice"});
  expect_refused("", {"flags.yaml:1:1:", "NAME: VALUE"});
}

TEST_F(ConfigFile, AnUnreadableFileIsAMissingInput) {
  expect_error([&] { with_config_file(verb_, {"--config=" + (scratch_.path() / "absent.yaml").string()}); },
               ExitCode::kNoInput, {"--config", "absent.yaml"});
  expect_error(
      [&] {
        with_config_file(verb_, {"--config", scratch_.path().string()});
      },
      ExitCode::kNoInput, {"cannot read"});
  expect_error([&] { with_config_file(verb_, {"--config", "/proc/self/mem"}); }, ExitCode::kNoInput, {"cannot read"});
}

TEST_F(ConfigFile, HasOneDocument) {
  const fs::path path = scratch_.path() / "odd.yaml";
  const auto read = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    with_config_file(verb_, {"--config", path.string()});
  };
  expect_error([&] { read("{}\n---\na: 5\n"); }, ExitCode::kUsage, {path.string() + ":3:1", "second YAML document"});
  expect_error([&] { read("a: \x04\n"); }, ExitCode::kUsage, {path.string() + ":1:4", "control character"});
}

TEST_F(ConfigFile, AnEndlessOrHugeFileIsNone) {
  expect_error([&] { with_config_file(verb_, {"--config", "/dev/zero"}); }, ExitCode::kBadData, {"/dev/zero", "MiB"});
  const std::string path = write("target: " + std::string(std::size_t{2} << 20, 'a') + "\n");
  expect_error([&] { with_config_file(verb_, {"--config", path}); }, ExitCode::kBadData, {path, "MiB"});
}

TEST(NearWords, FindsSlipsNearestFirst) {
  const Words verbs = {"calibrate", "stats", "inspect", "bench", "selftest"};
  EXPECT_EQ(near_words("calibrat", verbs), Words{"calibrate"});
  EXPECT_EQ(near_words("cal", verbs), Words{"calibrate"});
  EXPECT_EQ(near_words("stat", verbs), Words{"stats"});
  EXPECT_EQ(near_words("frobnicate", verbs), Words{});
  EXPECT_EQ(near_words("", verbs), Words{});
  EXPECT_EQ(near_words("seed", {"seed-file", "seeds"}), (Words{"seeds", "seed-file"}));
}

TEST(JoinOr, ReadsAsASentence) {
  EXPECT_EQ(join_or({}), "");
  EXPECT_EQ(join_or({"a"}), "a");
  EXPECT_EQ(join_or({"a", "b"}), "a or b");
  EXPECT_EQ(join_or({"a", "b", "c"}), "a, b or c");
}

class ExternalVerb : public ::testing::Test {
 protected:
  fs::path program(const std::string& directory, const std::string& name, bool is_executable = true) {
    const fs::path path = scratch_.path() / directory / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "#!/bin/sh\n";
    fs::permissions(path, is_executable ? fs::perms::owner_all : fs::perms::owner_read);
    return path;
  }
  std::string path_of(const std::string& directory) const { return (scratch_.path() / directory).string(); }

  ScratchDirectory scratch_;
};

TEST_F(ExternalVerb, IsLookedForBesideTheProgramFirst) {
  const fs::path beside = program("own", "winnow-prepare");
  const fs::path on_path = program("bin", "winnow-prepare");
  EXPECT_EQ(find_external_verb("prepare", path_of("own"), path_of("bin")), beside);
  EXPECT_EQ(find_external_verb("prepare", path_of("elsewhere"), path_of("none") + ":" + path_of("bin")), on_path);
  EXPECT_EQ(find_external_verb("report", path_of("own"), path_of("bin")), std::nullopt);
}

TEST_F(ExternalVerb, MustBeAnExecutableFile) {
  fs::create_directories(scratch_.path() / "bin" / "winnow-folder");
  EXPECT_EQ(find_external_verb("folder", "", path_of("bin")), std::nullopt);
  program("bin", "winnow-plain", false);
  EXPECT_EQ(find_external_verb("plain", "", path_of("bin")), std::nullopt);
}

TEST_F(ExternalVerb, ANameCannotLeaveTheFolder) {
  program("bin/winnow-x", "evil");
  EXPECT_EQ(find_external_verb("x/evil", "", path_of("bin")), std::nullopt);
  EXPECT_EQ(find_external_verb("../x", "", path_of("bin")), std::nullopt);
  EXPECT_EQ(find_external_verb("", "", path_of("bin")), std::nullopt);
}

TEST(Processor, NamesWhatIsNeededAndNotThere) {
  const std::array<ProcessorFeature, 4> features = {
      {{"avx", true, true}, {"avx2", true, false}, {"avx512f", false, false}, {"fma", true, false}}};
  EXPECT_EQ(missing_features(features), "avx2, fma");
  EXPECT_EQ(missing_features(std::span(features).first(1)), "");
}

TEST(CommandLine, RefusesWhatItDoesNotKnow) {
  const auto refused = [](const Words& arguments, const Words& words) {
    expect_error([&] { program::parse_command_line(arguments); }, ExitCode::kUsage, words);
  };
  refused({}, {"no verb", "calibrate", "winnow --help"});
  refused({"stat", "x"}, {"no verb 'stat'", "did you mean stats?"});
  refused({"--colour"}, {"unknown flag --colour"});
  refused({"stats", "file", "--sed", "1"}, {"stats:", "unknown flag --sed", "did you mean --seed?"});
  refused({"stats", "file", "other", "more"}, {"stats:", "unexpected argument 'more'"});
  refused({"stats"}, {"stats:", "winnow stats --help"});
  refused({"stats", "file", "--seed", "one"}, {"stats:", "--seed"});
  refused({"stats", "file", "--top-k"}, {"stats:", "--top-k"});
}

TEST(CommandLine, WholeNumbersAreDecimalAndWhole) {
  const auto parse = [](const std::string& flag, const std::string& number) {
    program::parse_command_line(
        {"evaluate", "--model", "m", "--data", "d", "--out", "o", "--pattern", "full", "--window", "8", flag, number});
  };
  for (const char* flag : {"--sinks", "--limit", "--seed", "--threads", "--generate"}) {
    EXPECT_NO_THROW(parse(flag, "10"));
    // Octal and hexadecimal were taken for other numbers, without a word.
    for (const char* number : {"010", "0x10", "+5", " 5", "5 ", "1e3", "-01"}) {
      expect_error([&] { parse(flag, number); }, ExitCode::kUsage,
                   {flag, "whole number", "\"" + std::string(number) + "\""});
    }
  }
}

TEST(CommandLine, HelpAndVersionAreNoErrors) {
  EXPECT_NO_THROW(program::parse_command_line({"--help"}));
  EXPECT_NO_THROW(program::parse_command_line({"--version"}));
  EXPECT_NO_THROW(program::parse_command_line({"help"}));
  EXPECT_NO_THROW(program::parse_command_line({"help", "stats"}));
  EXPECT_NO_THROW(program::parse_command_line({"calibrate", "--help"}));
}

}  // namespace
}  // namespace winnow::cli
