#include "jobs/program.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>

#include "jobs/commands.h"
#include "jobs/config_file.h"
#include "jobs/external_verb.h"
#include "jobs/text.h"
#include "kernels/error.h"
#include "winnow_version.h"

namespace winnow {
namespace {

constexpr const char* kDescription =
    "winnow: which layers of a language model must keep full attention when the others get a sliding window?\n"
    "It measures the answer: for each layer, how much worse the model predicts the answers of long prompts\n"
    "when that layer alone is windowed.\n";

constexpr const char* kFooter =
    "\nPrograms of their own:\n"
    "  prepare                         Conversations to a calibration file; in Python\n"
    "  report                          Results to a page for the browser; in Python\n"
    "  demo                            Calibrates a small trained model, to see what a result is\n"
    "Any other verb, too, runs the program winnow-VERB from beside this executable or from PATH.\n"
    "\nExit codes: 0 done, 64 flags, 65 bad data, 66 input missing, 69 machine unfit, 70 internal, 71 out of\n"
    "memory, 73 cannot create output, 74 I/O error, 75 interrupted and resumable, 78 other settings.\n"
    "\nExample:\n"
    "  winnow calibrate --model DIR --data calibration.h5 --window 2048 --out run\n";

// CLI11 reads 010 as 8; from a config file also nothing as a flag that was not given, and what is too large as the
// largest number.
std::string refuse_number(std::string& text) {
  const std::size_t sign = text.starts_with("-") ? 1 : 0;
  const bool has_padding = text.size() > sign + 1 && text[sign] == '0';
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && !has_padding) return "";
  return "expected a whole number, found \"" + text + "\"";
}

// On all flags of a verb, and of the verbs below it, whose help says that their value is a count.
void check_whole_numbers(CLI::App& app) {
  constexpr std::array kCounts = {"B", "K", "M", "N", "S", "W"};
  for (CLI::Option* option : app.get_options()) {
    const std::string name = option->get_type_name().substr(0, option->get_type_name().find(':'));
    if (std::find(kCounts.begin(), kCounts.end(), name) == kCounts.end()) continue;
    option->transform(CLI::Validator(refuse_number, ""));  // transform() puts it before the checks of ranges
  }
  for (CLI::App* below : app.get_subcommands({})) check_whole_numbers(*below);
}

struct Program {
  CLI::App app{kDescription, "winnow"};
  std::vector<Command> commands;

  Program() {
    app.footer(kFooter);
    app.get_formatter()->column_width(34);
    app.require_subcommand(1);
    app.set_version_flag("--version", std::string("winnow ") + kVersion + " (" + kGitRevision + ")");
    commands = {add_calibrate(app), add_search(app),  add_evaluate(app), add_stats(app),    add_select(app),
                add_export(app),    add_inspect(app), add_bench(app),    add_selftest(app), add_sweep(app)};
    for (const Command& command : commands) {
      if (!command.has_config) continue;
      command.app->add_option("--config")
          ->description("YAML file of flags under the same names (window: 2048); flags given here win")
          ->type_name("FILE");
    }
    for (const Command& command : commands) check_whole_numbers(*command.app);
  }

  const Command* find(const std::string& verb) const {
    const auto same = [&](const Command& command) { return command.app->get_name() == verb; };
    const auto found = std::find_if(commands.begin(), commands.end(), same);
    return found == commands.end() ? nullptr : &*found;
  }

  std::vector<std::string> verbs() const {
    std::vector<std::string> names;
    for (const Command& command : commands) names.push_back(command.app->get_name());
    return names;
  }
};

// CLI11's own message, or a better one for a flag that nobody knows; one line.
std::string explain(const CLI::ParseError& error, const Command& command) {
  const CLI::App* app = command.app;
  std::string verb = app->get_name();
  // A verb may have verbs: what is wrong is with the last that was named.
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    verb += " " + app->get_name();
  }
  const std::string hint = " (see winnow " + verb + " --help)";
  std::vector<std::string> unknown = app->remaining();
  if (unknown.empty()) unknown = command.app->remaining();
  if (unknown.empty()) {
    std::string message = error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return verb + ": " + message + hint;
  }
  const std::string word = unknown.front().substr(0, unknown.front().find('='));
  if (!word.starts_with("-")) return verb + ": unexpected argument '" + word + "'" + hint;
  std::vector<std::string> flags;
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  const std::vector<std::string> near = near_words(word, flags);
  return verb + ": unknown flag " + word + (near.empty() ? "" : "; did you mean " + join_or(near) + "?") + hint;
}

// Help and version: CLI11 reports them as errors that are a success.
std::function<int()> print_later(const CLI::App& app, const CLI::ParseError& success) {
  std::ostringstream text;
  app.exit(success, text, text);
  return [text = text.str()] {
    std::cout << text << std::flush;
    return static_cast<int>(ExitCode::kDone);
  };
}

// CLI11 takes an empty word for a flag that was not given.
void refuse_empty(const std::string& verb, const std::vector<std::string>& words) {
  std::string before = "the verb";
  for (const std::string& word : words) {
    const bool is_empty_value = word.starts_with("--") && word.ends_with("=");
    if (is_empty_value) before = word.substr(0, word.size() - 1);
    if (is_empty_value || word.empty()) {
      fail(ExitCode::kUsage, verb + ": the value after " + before + " is empty; an unset shell variable? (see winnow " +
                                 verb + " --help)");
    }
    before = word;
  }
}

void parse(CLI::App& app, std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  app.parse(std::move(words));
}

}  // namespace

std::function<int()> parse_command_line(const std::vector<std::string>& arguments) {
  const auto program = std::make_shared<Program>();
  std::vector<std::string> words = arguments;
  if (!words.empty() && words.front() == "help") {
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  if (words.empty())
    fail(ExitCode::kUsage, "no verb given; verbs: " + join_or(program->verbs()) + " (see winnow --help)");
  if (words.front().starts_with("-")) {
    try {
      parse(program->app, words);
    } catch (const CLI::Success& success) {
      return print_later(program->app, success);
    } catch (const CLI::ParseError&) {
      fail(ExitCode::kUsage, "unknown flag " + words.front() + " before the verb (see winnow --help)");
    }
  }

  const std::string verb = words.front();
  const Command* command = program->find(verb);
  const std::vector<std::string> flags(words.begin() + 1, words.end());
  if (command == nullptr) run_external_verb(verb, flags, program->verbs());
  refuse_empty(verb, flags);
  words = command->has_config ? with_config_file(*command->app, flags) : flags;
  words.insert(words.begin(), verb);
  try {
    parse(program->app, words);
  } catch (const CLI::Success& success) {
    return print_later(program->app, success);
  } catch (const CLI::ParseError& error) {
    fail(ExitCode::kUsage, explain(error, *command));
  }
  return [program, command] { return command->run(); };
}

}  // namespace winnow
