// Declares the flags of verbs through a small interface: CLI11, which parses them, is a header of ten thousand lines,
// and only jobs/cli/flags.cc includes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace winnow::cli {

// A handle on a flag, or on an argument that has a place instead of a name. The verb owns it.
class Flag {
 public:
  explicit Flag(CLI::Option* option) : option_(option) {}

  Flag& required();
  // Sets the word that stands for the value in the help. B, K, M, N, S and W make the value a whole number, written
  // plainly.
  Flag& type_name(const std::string& name);
  // Sets the heading of the help under which the flag stands.
  Flag& group(const std::string& name);
  Flag& description(const std::string& text);
  // Adds the value that the variable has now to the help.
  Flag& show_default();
  Flag& one_of(const std::vector<std::string>& values);
  Flag& in_range(int64_t first, int64_t last);
  // Refuses values for which `refusal` returns the reason; it returns an empty string for others.
  Flag& check(const std::function<std::string(const std::string&)>& refusal);
  // Makes a flag that may be repeated take one value each time, not all the words behind it.
  Flag& one_value_each();

 private:
  CLI::Option* option_;
};

// Spelling of a flag and the number of its values, for readers of the command line and of --config.
struct FlagForm {
  std::vector<std::string> long_names;   // without dashes
  std::vector<std::string> short_names;  // without the dash
  int max_values = 0;                    // 0: a switch
};

// A handle on a verb, or a verb of a verb, whose flags are declared here. The CommandLine owns it.
class Verb {
 public:
  explicit Verb(CLI::App* app) : app_(app) {}

  const std::string& name() const;
  Verb add_subcommand(const std::string& name, const std::string& description) const;
  // Makes the command line name one of its verbs.
  void require_subcommand() const;
  // Sets the text below the help. Verbs that are added later take it over.
  void footer(const std::string& text) const;
  // Calls `action` once the whole command line was parsed and named this verb.
  void when_named(const std::function<void()>& action) const;
  // Keeps words that no flag takes in `words`, without an error.
  void keep_unknown(std::vector<std::string>& words) const;

  // Declare a flag. `name` is --NAME, or NAME for an argument that has a place. The variable keeps its value where the
  // flag is not given.
  Flag add_option(const std::string& name, std::string& value, const std::string& description) const;
  Flag add_option(const std::string& name, std::filesystem::path& value, const std::string& description) const;
  Flag add_option(const std::string& name, int& value, const std::string& description) const;
  Flag add_option(const std::string& name, int64_t& value, const std::string& description) const;
  Flag add_option(const std::string& name, double& value, const std::string& description) const;
  Flag add_option(const std::string& name, std::vector<std::string>& values, const std::string& description) const;
  Flag add_option(const std::string& name, std::optional<std::string>& value, const std::string& description) const;
  Flag add_option(const std::string& name, std::optional<int64_t>& value, const std::string& description) const;
  Flag add_flag(const std::string& name, bool& value, const std::string& description) const;
  // Declares a flag whose value something else than the parser reads.
  Flag add_unread(const std::string& name, const std::string& description) const;

  // Returns the flag --NAME, which must be there.
  Flag flag(const std::string& name) const;
  std::vector<FlagForm> flags() const;

 private:
  friend class CommandLine;
  CLI::App* app_;
};

// Reason why a command line is refused.
struct Refusal {
  std::string verb;                // the last that was named, with the verbs above it: "sweep plan"
  std::string unknown;             // the first word that nothing takes, or empty
  std::string message;             // else what the parser says, one line
  std::vector<std::string> flags;  // of that verb, with dashes
};

struct Parsed {
  std::optional<std::string> text;  // help or version, to print instead of running
  std::optional<Refusal> refusal;
};

// The program's verbs and their flags.
class CommandLine {
 public:
  CommandLine(const std::string& description, const std::string& footer, const std::string& version);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // Returns the program itself: verbs are its subcommands.
  Verb program() const { return Verb(app_.get()); }
  // Sets the variables of the flags, and calls the actions of when_named() for the verbs named, unless something is
  // refused.
  Parsed parse(const std::vector<std::string>& words);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace winnow::cli
