#include "jobs/cli/external_verb.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/error.h"
#include "base/strings.h"
#include "winnow_version.h"

namespace winnow::cli {
namespace fs = std::filesystem;
namespace {

bool is_program(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && access(path.c_str(), X_OK) == 0;
}

// A verb becomes part of a file name: letters, digits and dashes only, so that it cannot name a path.
bool is_verb(const std::string& verb) {
  return !verb.empty() && std::all_of(verb.begin(), verb.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

fs::path own_directory() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : self.parent_path();
}

}  // namespace

std::optional<fs::path> find_external_verb(const std::string& verb, const fs::path& own_directory,
                                           const std::string& search_path) {
  if (!is_verb(verb)) return std::nullopt;
  const std::string program = "winnow-" + verb;
  if (!own_directory.empty() && is_program(own_directory / program)) return own_directory / program;
  std::istringstream directories(search_path);
  for (std::string directory; std::getline(directories, directory, ':');) {
    const fs::path candidate = fs::path(directory.empty() ? "." : directory) / program;
    if (is_program(candidate)) return candidate;
  }
  return std::nullopt;
}

void run_external_verb(const std::string& verb, const std::vector<std::string>& arguments,
                       const std::vector<std::string>& built_in_verbs) {
  const char* search_path = std::getenv("PATH");
  const auto program = find_external_verb(verb, own_directory(), search_path == nullptr ? "" : search_path);
  if (!program) {
    const std::vector<std::string> near = near_words(verb, built_in_verbs);
    fail(ExitCode::kUsage, "there is no verb '" + verb + "'" +
                               (is_verb(verb) ? " and no program winnow-" + verb + " beside winnow or on PATH" : "") +
                               (near.empty() ? "" : "; did you mean " + join_or(near) + "?") + " (see winnow --help)");
  }
  std::vector<std::string> words = {program->string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  setenv("WINNOW_VERSION", kVersion, 1);  // the program says when it is of another version
  execv(program->c_str(), argv.data());
  fail(ExitCode::kUnavailable, program->string() + " cannot be started: " + std::strerror(errno));
}

}  // namespace winnow::cli
