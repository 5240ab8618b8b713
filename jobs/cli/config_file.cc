#include "jobs/cli/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/strings.h"
#include "base/text_file.h"
#include "base/yaml_file.h"

namespace winnow::cli {
namespace {

const std::string kConfigFlag = "--config";

std::optional<std::string> config_path(const std::vector<std::string>& arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--") break;
    if (arguments[i].starts_with(kConfigFlag + "=")) return arguments[i].substr(kConfigFlag.size() + 1);
    if (arguments[i] == kConfigFlag && i + 1 < arguments.size()) return arguments[i + 1];
  }
  return std::nullopt;
}

bool is_given(const FlagForm& flag, const std::vector<std::string>& arguments) {
  const auto names = [&](const std::string& argument) {
    return std::any_of(flag.long_names.begin(), flag.long_names.end(),
                       [&](const std::string& name) {
                         return argument == "--" + name || argument.starts_with("--" + name + "=");
                       }) ||
           std::any_of(flag.short_names.begin(), flag.short_names.end(),
                       [&](const std::string& name) { return argument.starts_with("-" + name); });
  };
  return std::any_of(arguments.begin(), std::find(arguments.begin(), arguments.end(), "--"), names);
}

[[noreturn]] void refuse(const std::string& path, int line, int column, const std::string& message) {
  fail(ExitCode::kUsage, path + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + message);
}

// An empty file has no mark: -1, which becomes the first line and column.
[[noreturn]] void refuse(const std::string& path, const YAML::Mark& mark, const std::string& message) {
  refuse(path, std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1, message);
}

// The content of the file, which may also be a pipe (<(...) of a shell): of no more than flags take, and not waited for
// longer than a program needs to write them.
std::string read_flags(const std::string& path) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 20;
  constexpr int kWaitSeconds = 5;
  FileText file = read_file(path, {.max_bytes = kMostBytes, .pipe_seconds = kWaitSeconds});
  if (file.status == FileText::Status::kDone) return std::move(file.text);
  if (file.status == FileText::Status::kTooLarge) {
    fail(ExitCode::kBadData, "--config: " + path + " holds more than " + std::to_string(kMostBytes >> 20) +
                                 " MiB, which is no file of flags");
  }
  fail(ExitCode::kNoInput,
       "--config: cannot read the file " + path + ": " +
           (file.status == FileText::Status::kSilent ? "nothing came for " + std::to_string(kWaitSeconds) + " seconds"
                                                     : std::strerror(file.error)));
}

YAML::Node read_map(const std::string& path) {
  YAML::Node root;
  try {
    root = parse_yaml(read_flags(path));
  } catch (const YamlError& error) {
    refuse(path, error.line(), error.column(), error.what());
  }
  if (!root.IsMap()) refuse(path, root.Mark(), "expected lines of the form NAME: VALUE");
  return root;
}

// These two make no sense in the file.
bool is_for_command_line(const std::string& name) { return name == "config" || name == "help"; }

std::vector<std::string> flag_names(const std::vector<FlagForm>& flags) {
  std::vector<std::string> names;
  for (const FlagForm& flag : flags) {
    for (const std::string& name : flag.long_names) {
      if (!is_for_command_line(name)) names.push_back(name);
    }
  }
  return names;
}

FlagForm find_flag(const Verb& verb, const std::string& path, const YAML::Node& key) {
  if (!key.IsScalar()) refuse(path, key.Mark(), "expected the name of a flag");
  const std::string& name = key.Scalar();
  const std::vector<FlagForm> flags = verb.flags();
  const auto found = std::find_if(flags.begin(), flags.end(), [&](const FlagForm& flag) {
    return std::find(flag.long_names.begin(), flag.long_names.end(), name) != flag.long_names.end();
  });
  if (found == flags.end() || is_for_command_line(name)) {
    const std::vector<std::string> near = near_words(name, flag_names(flags));
    refuse(path, key.Mark(),
           "winnow " + verb.name() + " has no flag '" + shown_value(name) + "'" +
               (near.empty() ? "" : "; did you mean " + join_or(near) + "?"));
  }
  return *found;
}

// The flag with that value as one or more arguments.
std::vector<std::string> as_arguments(const FlagForm& form, const std::string& path, const YAML::Node& key,
                                      const YAML::Node& value) {
  const std::string flag = "--" + key.Scalar();
  if (form.max_values == 0) {
    bool is_on = false;
    if (!YAML::convert<bool>::decode(value, is_on)) refuse(path, value.Mark(), key.Scalar() + " is true or false");
    return is_on ? std::vector<std::string>{flag} : std::vector<std::string>{};
  }
  if (value.IsScalar()) return {flag + "=" + value.Scalar()};
  if (!value.IsSequence() || value.size() == 0) {
    refuse(path, value.IsNull() ? key.Mark() : value.Mark(), key.Scalar() + " needs a value or a list of values");
  }
  std::vector<std::string> items;
  for (const YAML::Node& item : value) {
    if (!item.IsScalar()) refuse(path, item.Mark(), key.Scalar() + ": an item of the list is no plain value");
    items.push_back(item.Scalar());
  }
  std::vector<std::string> arguments;
  if (form.max_values > 1) {
    for (const std::string& item : items) arguments.push_back(flag + "=" + item);
    return arguments;
  }
  // A flag with one value that is itself a list, such as --layers 0-3,7.
  std::string joined;
  for (const std::string& item : items) joined += (joined.empty() ? "" : ",") + item;
  return {flag + "=" + joined};
}

}  // namespace

std::vector<std::string> with_config_file(const Verb& verb, const std::vector<std::string>& arguments) {
  const std::optional<std::string> path = config_path(arguments);
  if (!path) return arguments;
  std::vector<std::string> all;
  std::set<std::string> seen;
  const YAML::Node root = read_map(*path);
  for (const auto& entry : root) {
    const FlagForm form = find_flag(verb, *path, entry.first);
    if (!seen.insert(form.long_names.front()).second)
      refuse(*path, entry.first.Mark(), shown_value(entry.first.Scalar()) + " is given twice");
    const std::vector<std::string> words = as_arguments(form, *path, entry.first, entry.second);
    if (!is_given(form, arguments)) all.insert(all.end(), words.begin(), words.end());
  }
  all.insert(all.end(), arguments.begin(), arguments.end());
  return all;
}

}  // namespace winnow::cli
