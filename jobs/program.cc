#include "jobs/program.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/strings.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/config_file.h"
#include "jobs/cli/external_verb.h"
#include "jobs/cli/flags.h"
#include "winnow_version.h"

namespace winnow::program {
namespace {

constexpr const char* kDescription =
    "winnow: which layers of a language model must keep full attention when the others get a sliding window?\n"
    "It measures the answer: for each layer, how much worse the model predicts the answers of long prompts\n"
    "when that layer alone is windowed.\n";

constexpr const char* kFooter =
    "\nPrograms of their own:\n"
    "  import                          GGUF files and the hub's cache to a checkpoint folder; in Python\n"
    "  prepare                         Conversations, benchmarks or tasks to a calibration file; in Python\n"
    "  report                          Results to a page for the browser; in Python\n"
    "  score                           Scores of what patterns wrote, by the metrics of benchmarks; in Python\n"
    "  serve-check                     Runs an export in its engine: is it the hybrid? in Python\n"
    "  demo                            Calibrates a small trained model, to see what a result is\n"
    "Any other verb, too, runs the program winnow-VERB from beside this executable or from PATH.\n"
    "\nExit codes: 0 done, 64 flags, 65 bad data, 66 input missing, 69 machine unfit, 70 internal, 71 out of\n"
    "memory, 73 cannot create output, 74 I/O error, 75 interrupted and resumable, 78 other settings.\n"
    "\nExample:\n"
    "  winnow calibrate --model DIR --data calibration.h5 --window 2048 --out run\n";

struct Program {
  cli::CommandLine line{kDescription, kFooter, std::string("winnow ") + kVersion + " (" + kGitRevision + ")"};
  std::vector<commands::Command> commands;

  Program() {
    const cli::Verb app = line.program();
    commands = {commands::add_calibrate(app), commands::add_search(app),  commands::add_evaluate(app),
                commands::add_stats(app),     commands::add_select(app),  commands::add_plan(app),
                commands::add_export(app),    commands::add_inspect(app), commands::add_bench(app),
                commands::add_selftest(app),  commands::add_sweep(app)};
    for (const commands::Command& command : commands) {
      if (!command.has_config) continue;
      command.verb
          .add_unread("--config", "YAML file of flags under the same names (window: 2048); flags given here win")
          .type_name("FILE");
    }
  }

  const commands::Command* find(const std::string& verb) const {
    const auto same = [&](const commands::Command& command) { return command.verb.name() == verb; };
    const auto found = std::find_if(commands.begin(), commands.end(), same);
    return found == commands.end() ? nullptr : &*found;
  }

  std::vector<std::string> verbs() const {
    std::vector<std::string> names;
    for (const commands::Command& command : commands) names.push_back(command.verb.name());
    return names;
  }
};

// The parser's own message, or a better one for a flag that nobody knows; one line.
std::string explain(const cli::Refusal& refusal) {
  const std::string hint = " (see winnow " + refusal.verb + " --help)";
  if (refusal.unknown.empty()) return refusal.verb + ": " + refusal.message + hint;
  const std::string word = refusal.unknown.substr(0, refusal.unknown.find('='));
  if (!word.starts_with('-')) return refusal.verb + ": unexpected argument '" + word + "'" + hint;
  const std::vector<std::string> near = near_words(word, refusal.flags);
  return refusal.verb + ": unknown flag " + word + (near.empty() ? "" : "; did you mean " + join_or(near) + "?") + hint;
}

// Help and version.
std::function<int()> print_later(const std::string& text) {
  return [text] {
    std::cout << text << std::flush;
    return static_cast<int>(ExitCode::kDone);
  };
}

// The parser takes an empty word for a flag that was not given.
void refuse_empty(const std::string& verb, const std::vector<std::string>& words) {
  std::string before = "the verb";
  for (const std::string& word : words) {
    const bool is_empty_value = word.starts_with("--") && word.ends_with('=');
    if (is_empty_value) before = word.substr(0, word.size() - 1);
    if (is_empty_value || word.empty()) {
      fail(ExitCode::kUsage, verb + ": the value after " + before + " is empty; an unset shell variable? (see winnow " +
                                 verb + " --help)");
    }
    before = word;
  }
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
  if (words.front().starts_with('-')) {
    const cli::Parsed parsed = program->line.parse(words);
    if (parsed.text) return print_later(*parsed.text);
    fail(ExitCode::kUsage, "unknown flag " + words.front() + " before the verb (see winnow --help)");
  }

  const std::string verb = words.front();
  const commands::Command* command = program->find(verb);
  const std::vector<std::string> flags(words.begin() + 1, words.end());
  if (command == nullptr) cli::run_external_verb(verb, flags, program->verbs());
  refuse_empty(verb, flags);
  words = command->has_config ? cli::with_config_file(command->verb, flags) : flags;
  words.insert(words.begin(), verb);
  const cli::Parsed parsed = program->line.parse(words);
  if (parsed.text) return print_later(*parsed.text);
  if (parsed.refusal) fail(ExitCode::kUsage, explain(*parsed.refusal));
  return [program, command] { return command->run(); };
}

}  // namespace winnow::program
