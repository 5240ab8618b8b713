#include "pipeline/run/options/option.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include "base/error.h"
#include "base/strings.h"

namespace winnow::run {
namespace {

constexpr std::array<const char*, 3> kVerbNames = {"calibrate", "search", "evaluate"};

template <typename T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, std::filesystem::path>) {
    return value.string();
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else {
    return fmt::format("{}", value);
  }
}

std::vector<std::string> words_of_value(bool is_on) {
  return is_on ? std::vector<std::string>{"true"} : std::vector<std::string>{};
}
std::vector<std::string> words_of_value(const std::vector<std::string>& values) { return values; }
std::vector<std::string> words_of_value(const Controls& controls) {
  std::vector<std::string> words;
  for (const auto& [name, file] : controls) words.push_back(name + "=" + file.string());
  return words;
}
template <typename T>
std::vector<std::string> words_of_value(const std::optional<T>& value) {
  return value ? std::vector<std::string>{text_of(*value)} : std::vector<std::string>{};
}
template <typename T>
std::vector<std::string> words_of_value(const T& value) {
  return {text_of(value)};
}

void set_value(const std::vector<std::string>& words, bool& value) { value = words.front() == "true"; }
// Slurm's and the system's numbers of processors are far below that.
void set_value(const std::vector<std::string>& words, int& value) {
  value = static_cast<int>(std::min<long long>(std::stoll(words.front()), 1'000'000'000));
}
void set_value(const std::vector<std::string>& words, int64_t& value) { value = std::stoll(words.front()); }
void set_value(const std::vector<std::string>& words, double& value) { value = std::stod(words.front()); }
void set_value(const std::vector<std::string>& words, std::filesystem::path& value) { value = words.front(); }
void set_value(const std::vector<std::string>& words, std::string& value) { value = joined(words, ","); }
void set_value(const std::vector<std::string>& words, std::vector<std::string>& value) { value = words; }
void set_value(const std::vector<std::string>& words, Controls& value) {
  value.clear();
  for (const std::string& word : words) value.push_back(parse_control(word));
}
template <typename T>
void set_value(const std::vector<std::string>& words, std::optional<T>& value) {
  set_value(words, value.emplace());
}

std::optional<int64_t> number_in(int value) { return value; }
std::optional<int64_t> number_in(int64_t value) { return value; }
std::optional<int64_t> number_in(const std::optional<int64_t>& value) { return value; }
template <typename T>
std::optional<int64_t> number_in(const T&) {
  return std::nullopt;
}

}  // namespace

const char* verb_name(Verb verb) { return kVerbNames[static_cast<std::size_t>(verb)]; }

std::optional<Verb> find_verb(const std::string& name) {
  const auto found = std::find(kVerbNames.begin(), kVerbNames.end(), name);
  if (found == kVerbNames.end()) return std::nullopt;
  return static_cast<Verb>(found - kVerbNames.begin());
}

const std::vector<Verb>& all_verbs() {
  static const std::vector<Verb> kVerbs = {Verb::kCalibrate, Verb::kSearch, Verb::kEvaluate};
  return kVerbs;
}

bool Option::takes(Verb verb) const {
  return verbs.empty() || std::find(verbs.begin(), verbs.end(), verb) != verbs.end();
}

bool Option::is_switch() const { return std::holds_alternative<bool RunOptions::*>(field); }

bool Option::is_repeated() const {
  return std::holds_alternative<std::vector<std::string> RunOptions::*>(field) ||
         std::holds_alternative<Controls RunOptions::*>(field);
}

bool Option::is_integer() const {
  return std::holds_alternative<int RunOptions::*>(field) || std::holds_alternative<int64_t RunOptions::*>(field) ||
         std::holds_alternative<std::optional<int64_t> RunOptions::*>(field);
}

bool Option::is_number() const { return std::holds_alternative<double RunOptions::*>(field); }

std::string Option::key() const {
  if (!sweep_name.empty()) return sweep_name;
  std::string key = name;
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::string Option::description() const { return absent.empty() ? help : help + " (default: " + absent + ")"; }

std::vector<std::string> words_of(const Option& option, const RunOptions& options) {
  static const RunOptions kNothing;
  return std::visit(
      [&](auto member) -> std::vector<std::string> {
        if (options.*member == kNothing.*member) return {};
        return words_of_value(options.*member);
      },
      option.field);
}

void set_words(const Option& option, const std::vector<std::string>& words, RunOptions& options) {
  std::visit([&](auto member) { set_value(words, options.*member); }, option.field);
}

std::vector<std::string> flags_of(const Option& option, const RunOptions& options) {
  std::vector<std::string> flags = words_of(option, options);
  for (std::string& word : flags) word = option.is_switch() ? "--" + option.name : "--" + option.name + "=" + word;
  return flags;
}

void check_value(const Option& option, const RunOptions& options) {
  const std::vector<std::string> words = words_of(option, options);
  if (words.empty() && (!option.is_required || !option.instead.empty())) return;
  const std::string flag = "--" + option.name;
  const auto number = std::visit([&](auto member) { return number_in(options.*member); }, option.field);
  const auto refuse = [&](const std::string& bound, int64_t value) {
    fail(ExitCode::kUsage,
         flag + " is " + std::to_string(*number) + ", expected at " + bound + " " + std::to_string(value));
  };
  if (number && option.minimum && *number < *option.minimum) refuse("least", *option.minimum);
  if (number && option.maximum && *number > *option.maximum) refuse("most", *option.maximum);
  if (option.choices.empty() || option.syntax == Syntax::kWords) return;
  require_one_of(flag, words.empty() ? "" : words.front(), option.choices);
}

}  // namespace winnow::run
