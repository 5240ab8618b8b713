// The table of options against what is made of it: the help of each verb, the JSON Schema and the keys of sweep files,
// and the command line of a cell, which the program itself reads back.
#include "pipeline/run/options/option_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "jobs/cli/run_flags.h"
#include "jobs/sweep/cells.h"
#include "jobs/sweep/sweep_schema.h"
#include "tests/pipeline/run/options/option_values.h"
#include "tests/scratch.h"

namespace winnow::sweep {
namespace {

namespace fs = std::filesystem;

// The verb with the flags of the table, on a command line of its own.
class RunCommandLine {
 public:
  explicit RunCommandLine(run::Verb verb)
      : name_(run::verb_name(verb)),
        verb_(line_.program().add_subcommand(name_, "")),
        options_(cli::add_run_flags(verb_, verb)) {}

  std::string help() { return line_.parse({name_, "--help"}).text.value(); }
  run::RunOptions parse(const std::vector<std::string>& words) {
    const cli::Parsed parsed = line_.parse(words);
    EXPECT_FALSE(parsed.refusal.has_value()) << parsed.refusal->message << parsed.refusal->unknown;
    return options_();
  }

 private:
  std::string name_;
  cli::CommandLine line_{"", "", "0"};
  cli::Verb verb_;
  std::function<run::RunOptions()> options_;
};

TEST(Options, StandInTheHelpOfTheirVerbsAndOfNoOther) {
  for (const run::Verb verb : run::all_verbs()) {
    const std::string help = RunCommandLine(verb).help();
    for (const run::Option& option : run::option_table()) {
      const bool is_flag = std::regex_search(help, std::regex("\n  --" + option.name + "[ :\n]"));
      bool is_taken = false;
      for (const run::Option* taken : run::options_of(verb)) is_taken = is_taken || taken->name == option.name;
      EXPECT_EQ(is_flag, is_taken) << run::verb_name(verb) << " --" << option.name;
      if (!option.takes(verb)) continue;
      EXPECT_NE(help.find(option.description()), std::string::npos) << run::verb_name(verb) << " --" << option.name;
      EXPECT_NE(help.find("\n" + option.group + ":\n"), std::string::npos) << option.group;
    }
  }
}

TEST(Options, StandInTheSchemaWhereSweepsTakeThem) {
  const nlohmann::json schema = nlohmann::json::parse(json_schema())["properties"];
  const nlohmann::json& set = schema["overrides"]["items"]["properties"]["set"]["properties"];
  const nlohmann::json& model = schema["models"]["items"]["properties"];
  const nlohmann::json& defaults = schema["defaults"]["properties"];
  for (const run::Option& option : run::option_table()) {
    const std::string key = option.key();
    const bool is_setting = option.sweep == run::SweepUse::kSetting;
    const bool is_resource = option.sweep == run::SweepUse::kResource;
    EXPECT_EQ(schema.contains(key), is_setting || option.sweep == run::SweepUse::kAxis) << key;
    EXPECT_EQ(set.contains(key), is_setting || is_resource) << key;
    EXPECT_EQ(model.contains(key), is_resource) << key;
    EXPECT_EQ(defaults.contains(key), is_resource) << key;
    if (!set.contains(key)) continue;
    const nlohmann::json one = set[key].contains("anyOf") ? set[key]["anyOf"][0] : set[key];
    const bool is_choice = !option.choices.empty() && option.syntax == run::Syntax::kAny;
    EXPECT_EQ(one.value("enum", std::vector<std::string>()), is_choice ? option.choices : std::vector<std::string>())
        << key;
    EXPECT_EQ(one.contains("minimum"), option.is_integer() || option.is_number()) << key;
    EXPECT_EQ(one.value("minimum", int64_t{0}), option.minimum.value_or(0)) << key;
    EXPECT_EQ(one.contains("type") && one["type"] == "boolean", option.is_switch()) << key;
  }
}

// A folder with a model and a data set, and sweeps of one cell.
class OneCell : public ::testing::Test {
 protected:
  OneCell() {
    fs::create_directories(scratch_.path() / "m");
    std::ofstream(scratch_.path() / "m/config.json") << "{}";
    std::ofstream(scratch_.path() / "d.h5") << "x";
  }

  // Of a sweep file with these keys besides.
  SweepCell cell(const nlohmann::json& more) const {
    nlohmann::json file = {{"name", "one"},
                           {"output", "out"},
                           {"models", {{{"name", "m"}, {"path", "m"}}}},
                           {"datasets", {{{"name", "d"}, {"data", "d.h5"}}}},
                           {"windows", {16}}};
    file.update(more);
    std::vector<SweepCell> cells = parse_sweep(scratch_.path() / "one.yaml", file.dump()).cells;
    EXPECT_EQ(cells.size(), 1u) << file;
    return cells.front();
  }

  // What a file must say besides for a cell of the verb to take the option.
  static nlohmann::json keys_with(run::Verb verb, const std::string& option) {
    const run::RunOptions command = run::command_with(verb, option);
    nlohmann::json keys = {{"verb", run::verb_name(verb)}};
    for (const char* name : {"method", "keep", "pattern", "per-kv-head", "signals", "verify", "generate"}) {
      for (const run::Option* other : run::options_of(verb)) {
        if (other->name == name && name != option) put(*other, run::words_of(*other, command), keys);
      }
    }
    return keys;
  }

  static void put(const run::Option& option, const std::vector<std::string>& words, nlohmann::json& keys) {
    if (words.empty()) return;
    const bool is_plain = option.is_integer() || option.is_number() || option.is_switch();
    const nlohmann::json value = is_plain ? nlohmann::json::parse(words.front()) : nlohmann::json(words.front());
    const bool is_list = option.sweep == run::SweepUse::kAxis;
    if (option.sweep == run::SweepUse::kResource) {
      keys["defaults"][option.key()] = value;
    } else {
      keys[option.key()] = is_list ? nlohmann::json::array({value}) : value;
    }
  }

  ScratchDirectory scratch_;
};

TEST_F(OneCell, EveryKeyOfASweepBecomesTheFlagOfACell) {
  for (const run::Verb verb : run::all_verbs()) {
    for (const run::Option* option : run::options_of(verb)) {
      if (option->sweep == run::SweepUse::kNever || option->name == "seed") continue;  // seeds are results of a cell
      for (const std::string& value : run::other_values().at(option->name)) {
        nlohmann::json keys = keys_with(verb, option->name);
        put(*option, {value}, keys);
        const SweepCell found = cell(keys);
        const std::vector<std::string>& words = found.cell.calibrate_arguments;
        EXPECT_EQ(words.front(), run::verb_name(verb));
        const run::RunOptions options = RunCommandLine(verb).parse(words);
        const bool is_file = option->syntax == run::Syntax::kFileName;
        const std::string expected = is_file ? (found.cell.run_directory / value).string() : value;
        EXPECT_EQ(run::words_of(*option, options), std::vector<std::string>{expected})
            << run::verb_name(verb) << " " << option->name;
        // The program is given what the sweep decided on, and nothing else.
        for (const run::Option* other : run::options_of(verb)) {
          EXPECT_EQ(run::words_of(*other, options), run::words_of(*other, found.options)) << other->name;
        }
      }
    }
  }
}

// The name is that of another run directory where the figures or the cells are others, and of the same otherwise.
TEST_F(OneCell, TheNameFollowsWhatIsMeasured) {
  for (const run::Verb verb : run::all_verbs()) {
    for (const run::Option* option : run::options_of(verb)) {
      if (option->sweep == run::SweepUse::kNever) continue;
      nlohmann::json keys = keys_with(verb, option->name);
      put(*option, {run::other_values().at(option->name).front()}, keys);
      nlohmann::json without = keys_with(verb, option->name);
      // What must be given has another value instead of none.
      if (option->name == "method") without["method"] = "greedy-backward";
      if (option->name == "keep") without["keep"] = 1;
      if (option->name == "pattern") without["pattern"] = "first:1";
      const bool is_other = option->part == run::Part::kMeasurement || option->part == run::Part::kExtent;
      EXPECT_EQ(cell(keys).cell.name != cell(without).cell.name, is_other)
          << run::verb_name(verb) << " " << option->name;
    }
  }
}

TEST_F(OneCell, AKeyOfAnotherVerbIsASlip) {
  const auto refusal = [&](const nlohmann::json& keys) {
    try {
      cell(keys);
    } catch (const SweepFileError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refusal({{"pattern", "first:1"}}).find("pattern is of evaluate cells, and there is none"),
            std::string::npos);
  EXPECT_NE(refusal({{"verb", "evaluate"}}).find("no --pattern is given"), std::string::npos);
  EXPECT_NE(refusal({{"verb", "search"}, {"method", "pairs"}}).find("no --keep is given"), std::string::npos);
  EXPECT_NE(refusal({{"verb", "search"}, {"method", "pairs"}, {"keep", 2}, {"top_k", 1}}).find("top_k is of calibrate"),
            std::string::npos);
  EXPECT_NE(refusal({{"verb", "evaluate"}, {"pattern", "s-{model}.json"}}).find("s-m.json is missing"),
            std::string::npos);
  EXPECT_NE(refusal({{"signals", "kl,gradient"}}).find("signals is 'kl,gradient'"), std::string::npos);
  EXPECT_NE(refusal({{"grace", "soon"}}).find("grace is 'soon'; expected a number"), std::string::npos);
}

}  // namespace
}  // namespace winnow::sweep
