#include "jobs/cli/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <utility>

namespace winnow::cli {
namespace {

// CLI11 reads 010 as 8; from a config file also nothing as a flag that was not given, and what is too large as the
// largest number.
std::string refuse_number(std::string& text) {
  const std::size_t sign = text.starts_with('-') ? 1 : 0;
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

// A verb may have verbs: what is wrong is with the last that was named.
Refusal refusal_of(const CLI::App& program, const CLI::ParseError& error) {
  Refusal refusal;
  const CLI::App* app = &program;
  std::vector<std::string> unknown;
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    refusal.verb += (refusal.verb.empty() ? "" : " ") + app->get_name();
    if (!app->remaining().empty()) unknown = app->remaining();
  }
  if (unknown.empty()) unknown = program.remaining();
  if (!unknown.empty()) refusal.unknown = unknown.front();
  refusal.message = error.what();
  std::replace(refusal.message.begin(), refusal.message.end(), '\n', ' ');
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) refusal.flags.push_back("--" + name);
  }
  return refusal;
}

}  // namespace

Flag& Flag::required() {
  option_->required();
  return *this;
}

Flag& Flag::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Flag& Flag::group(const std::string& name) {
  option_->group(name);
  return *this;
}

Flag& Flag::description(const std::string& text) {
  option_->description(text);
  return *this;
}

Flag& Flag::show_default() {
  option_->capture_default_str();
  return *this;
}

Flag& Flag::one_of(const std::vector<std::string>& values) {
  option_->check(CLI::IsMember(values));
  return *this;
}

Flag& Flag::in_range(int64_t first, int64_t last) {
  option_->check(CLI::Range(first, last));
  return *this;
}

Flag& Flag::check(const std::function<std::string(const std::string&)>& refusal) {
  option_->check(refusal);
  return *this;
}

Flag& Flag::one_value_each() {
  option_->allow_extra_args(false);
  return *this;
}

const std::string& Verb::name() const { return app_->get_name(); }

Verb Verb::add_subcommand(const std::string& name, const std::string& description) const {
  return Verb(app_->add_subcommand(name, description));
}

void Verb::require_subcommand() const { app_->require_subcommand(1); }

void Verb::footer(const std::string& text) const { app_->footer(text); }

void Verb::when_named(const std::function<void()>& action) const { app_->callback(action); }

void Verb::keep_unknown(std::vector<std::string>& words) const {
  app_->allow_extras();
  app_->parse_complete_callback([app = app_, &words] { words = app->remaining(); });
}

Flag Verb::add_option(const std::string& name, std::string& value, const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_option(const std::string& name, std::filesystem::path& value, const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_option(const std::string& name, int& value, const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_option(const std::string& name, int64_t& value, const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_option(const std::string& name, double& value, const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_option(const std::string& name, std::vector<std::string>& values, const std::string& description) const {
  return Flag(app_->add_option(name, values, description));
}

Flag Verb::add_option(const std::string& name, std::optional<std::string>& value,
                      const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_option(const std::string& name, std::optional<int64_t>& value, const std::string& description) const {
  return Flag(app_->add_option(name, value, description));
}

Flag Verb::add_flag(const std::string& name, bool& value, const std::string& description) const {
  return Flag(app_->add_flag(name, value, description));
}

Flag Verb::add_unread(const std::string& name, const std::string& description) const {
  return Flag(app_->add_option(name)->description(description));
}

Flag Verb::flag(const std::string& name) const { return Flag(app_->get_option(name)); }

std::vector<FlagForm> Verb::flags() const {
  std::vector<FlagForm> forms;
  for (const CLI::Option* option : std::as_const(*app_).get_options()) {
    forms.push_back({option->get_lnames(), option->get_snames(), option->get_items_expected_max()});
  }
  return forms;
}

CommandLine::CommandLine(const std::string& description, const std::string& footer, const std::string& version)
    : app_(std::make_unique<CLI::App>(description, "winnow")) {
  app_->footer(footer);
  app_->get_formatter()->column_width(34);
  app_->require_subcommand(1);
  app_->set_version_flag("--version", version);
}

CommandLine::~CommandLine() = default;

Parsed CommandLine::parse(const std::vector<std::string>& words) {
  check_whole_numbers(*app_);
  try {
    app_->parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
  } catch (const CLI::Success& success) {
    std::ostringstream text;
    app_->exit(success, text, text);
    return {.text = text.str(), .refusal = std::nullopt};
  } catch (const CLI::ParseError& error) {
    return {.text = std::nullopt, .refusal = refusal_of(*app_, error)};
  }
  return {};
}

}  // namespace winnow::cli
