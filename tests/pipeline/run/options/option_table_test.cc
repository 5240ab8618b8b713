// The table of options against what is made of it: words and back, checks, and the identity of a measurement.
#include "pipeline/run/options/option_table.h"

#include <gtest/gtest.h>

#include <set>

#include "pipeline/run/inputs.h"
#include "tests/pipeline/run/options/option_values.h"
#include "tests/scratch.h"

namespace winnow::run {
namespace {

TEST(OptionTable, HasEveryOptionOnceAVerb) {
  std::set<std::string> names;
  for (const Verb verb : all_verbs()) {
    std::set<std::string> of_verb;
    for (const Option* option : options_of(verb)) {
      EXPECT_TRUE(of_verb.insert(option->name).second) << verb_name(verb) << " " << option->name;
      EXPECT_EQ(&find_option(verb, option->name), option);
    }
    names.insert(of_verb.begin(), of_verb.end());
    EXPECT_EQ(find_verb(verb_name(verb)), verb);
  }
  EXPECT_FALSE(find_verb("stats").has_value());
  EXPECT_THROW(find_option(Verb::kSearch, "top-k"), std::out_of_range);
  std::set<std::string> known;
  for (const auto& [name, values] : other_values()) known.insert(name);
  EXPECT_EQ(names, known) << "an option without a value in this test";
}

TEST(OptionTable, EveryRowSaysWhatItIs) {
  for (const Option& option : option_table()) {
    EXPECT_FALSE(option.help.empty()) << option.name;
    EXPECT_FALSE(option.group.empty()) << option.name;
    EXPECT_EQ(option.value.empty(), option.is_switch()) << option.name;
    EXPECT_NE(option.is_required, !option.absent.empty()) << option.name << " has a default or must be given";
    EXPECT_EQ(option.part == Part::kMeasurement, !option.identity.empty()) << option.name;
  }
}

TEST(OptionTable, WordsComeBack) {
  for (const Option& option : option_table()) {
    EXPECT_TRUE(words_of(option, RunOptions{}).empty()) << option.name;
    std::set<std::vector<std::string>> all;
    for (const std::string& value : other_values().at(option.name)) {
      RunOptions options;
      set_words(option, {value}, options);
      EXPECT_EQ(words_of(option, options), std::vector<std::string>{value}) << option.name;
      const std::string flag = "--" + option.name;
      EXPECT_EQ(flags_of(option, options), (std::vector<std::string>{option.is_switch() ? flag : flag + "=" + value}));
      // Nothing else was set.
      for (const Option& other : option_table()) {
        EXPECT_EQ(words_of(other, options).empty(), other.name != option.name) << option.name << " " << other.name;
      }
    }
  }
}

TEST(OptionTable, ValuesOutsideAreRefusedByName) {
  for (const Option& option : option_table()) {
    const auto refuses = [&](const std::string& word) {
      RunOptions options;
      set_words(option, {word}, options);
      expect_error([&] { check_value(option, options); }, ExitCode::kUsage, {"--" + option.name, word});
    };
    if (option.is_integer() && option.minimum && option.maximum) refuses(std::to_string(*option.maximum + 1));
    if (option.is_integer() && option.minimum && *option.minimum == 0) refuses("-1");
    if (!option.choices.empty() && option.syntax != Syntax::kWords) refuses("nothing-of-this-kind");
  }
}

// The identity that a command would have, on a model of four layers: what only a device knows is as it was asked for.
nlohmann::json identity_of_command(const RunOptions& options) {
  check_options(options);
  RunIdentity identity;
  identity.kind = kind_of(options);
  identity.checkpoint_sha256 = options.model.string();
  identity.data_sha256 = options.data.string();
  take_settings(resolve_settings(options, 4), identity);
  identity.residual_dtype = options.residual;
  identity.backend = options.device;
  identity.attention_path = options.attention;
  return identity.to_json();
}

// Fields of the identity that differ between a command without the option and with one of its other values.
std::set<std::string> changed_fields(Verb verb, const Option& option) {
  const RunOptions without = command_with(verb, option.name);
  const nlohmann::json before = identity_of_command(without);
  std::set<std::string> fields;
  for (const std::string& value : other_values().at(option.name)) {
    RunOptions with = without;
    set_words(option, {value}, with);
    const nlohmann::json after = identity_of_command(with);
    for (const auto* json : {&before, &after}) {
      for (const auto& [field, unused] : json->items()) {
        if (before.value(field, nlohmann::json()) != after.value(field, nlohmann::json())) fields.insert(field);
      }
    }
  }
  return fields;
}

TEST(OptionTable, AnOptionIsInTheIdentityWhereItSaysSo) {
  std::set<std::string> decided = {"compute_dtype", "schema_version"};  // by the device and by the program
  for (const Verb verb : all_verbs()) {
    for (const Option* option : options_of(verb)) {
      EXPECT_EQ(changed_fields(verb, *option), std::set<std::string>(option->identity.begin(), option->identity.end()))
          << verb_name(verb) << " --" << option->name;
      decided.insert(option->identity.begin(), option->identity.end());
    }
  }
  RunOptions all = command_with(Verb::kSearch, "");
  all.signals = "all";
  all.windows = "16,64";
  all.kv = "fp8";
  all.per_kv_head = true;
  const nlohmann::json identity = identity_of_command(all);
  std::set<std::string> fields;
  for (const auto& [field, value] : identity.items()) fields.insert(field);
  EXPECT_EQ(fields, decided) << "a field of the identity that no option decides";
}

}  // namespace
}  // namespace winnow::run
