#include "jobs/cli/run_flags.h"

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/node.h"
#include "base/strings.h"
#include "pipeline/run/options/option_table.h"
#include "winnow_version.h"

namespace winnow::cli {
namespace {

// What the parser of flags sets.
struct Values {
  run::RunOptions options;
  std::vector<std::string> controls;  // NAME=FILE

  // The options, with what the flags leave open.
  run::RunOptions complete() const {
    run::RunOptions result = options;
    for (const std::string& control : controls) result.controls.push_back(run::parse_control(control));
    result.command = command_line();
    result.version = kVersion;
    result.git_revision = kGitRevision;
    return result;
  }
};

// A check of a flag from a parser that throws: its message without the flag, which stands before it anyway.
template <typename Parse>
auto refusal_of(const std::string& flag, Parse parse) {
  return [flag, parse](const std::string& text) {
    try {
      parse(text, flag);
      return std::string();
    } catch (const Error& error) {
      const std::string message = error.what();
      const std::string prefix = flag + ": ";
      return message.rfind(prefix, 0) == 0 ? message.substr(prefix.size()) : message;
    }
  };
}

// The option of the verb that may stand in the place of a required one; null where there is none.
const run::Option* replacement_of(const run::Option& option, run::Verb of) {
  for (const run::Option* other : run::options_of(of)) {
    if (std::ranges::find(option.instead, other->name) != option.instead.end()) return other;
  }
  return nullptr;
}

// Whether the command line must have it.
bool is_required(const run::Option& option, run::Verb of) {
  return option.is_required && replacement_of(option, of) == nullptr;
}

template <typename Member>
Flag add_member(const Verb& verb, const std::string& flag, const run::Option& option, Member member, Values& values) {
  const run::Option* other = replacement_of(option, values.options.verb);
  const std::string help =
      option.description() + (other != nullptr ? " (default: the smallest of --" + other->name + ")" : "");
  if constexpr (std::is_same_v<Member, bool run::RunOptions::*>) {
    return verb.add_flag(flag, values.options.*member, help);
  } else if constexpr (std::is_same_v<Member, run::Controls run::RunOptions::*>) {
    return verb.add_option(flag, values.controls, help);
  } else {
    return verb.add_option(flag, values.options.*member, help);
  }
}

void add_flag(const Verb& verb, const run::Option& option, Values& values) {
  const std::string name = "--" + option.name;
  Flag flag = std::visit([&](auto member) { return add_member(verb, name, option, member, values); }, option.field);
  flag.group(option.group);
  if (!option.value.empty()) flag.type_name(option.value);
  if (is_required(option, values.options.verb)) flag.required();
  if (option.is_repeated()) flag.one_value_each();
  if (option.minimum && option.maximum) flag.in_range(*option.minimum, *option.maximum);
  if (option.syntax == run::Syntax::kSize) flag.check(refusal_of(name, parse_bytes));
  if (option.syntax == run::Syntax::kWindows) flag.check(refusal_of(name, run::parse_windows));
  if (option.syntax == run::Syntax::kKvTypes) flag.check(refusal_of(name, parse_kv_types));
  if (option.syntax == run::Syntax::kControl) {
    flag.check(refusal_of(name, [](const std::string& text, const std::string&) { run::parse_control(text); }));
  }
}

}  // namespace

std::function<run::RunOptions()> add_run_flags(const Verb& verb, run::Verb of) {
  const auto values = std::make_shared<Values>();
  values->options.verb = of;
  for (const run::Option* option : run::options_of(of)) add_flag(verb, *option, *values);
  return [values] { return values->complete(); };
}

}  // namespace winnow::cli
