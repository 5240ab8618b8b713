#include "jobs/sweep/executors/slurm/sbatch_answer.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>
#include <string_view>

#include "jobs/sweep/executors/slurm/commands.h"
#include "jobs/sweep/failed_launch.h"

namespace winnow::slurm {
namespace {

constexpr std::size_t kMostDigits = 10;

// Without escape sequences and other control characters; a line feed stays.
std::string plain_text(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\x1b' && i + 1 < text.size() && text[i + 1] == '[') {
      i += 2;  // "ESC [ 0;32 m": ends with the first byte from @ to ~
      while (i < text.size() && (text[i] < '@' || text[i] > '~')) ++i;
    } else if (c == '\x1b' && i + 1 < text.size() && text[i + 1] == ']') {
      i += 2;  // a title: ends with BEL or "ESC \"
      while (i < text.size() && text[i] != '\a' && text[i] != '\x1b' && text[i] != '\n') ++i;
      if (i + 1 < text.size() && text[i] == '\x1b' && text[i + 1] == '\\') ++i;
    } else if (c == '\r') {
      plain += '\n';
    } else if (c == '\n' || static_cast<unsigned char>(c) >= 0x20) {
      plain += c;
    }
  }
  return plain;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

// The digits that a text begins with, where they are a job's number.
std::string leading_number(std::string_view text) {
  const std::size_t n = std::min(text.find_first_not_of("0123456789"), text.size());
  return n == 0 || n > kMostDigits || text[0] == '0' ? "" : std::string(text.substr(0, n));
}

// "1234" or "1234;cluster", and nothing else.
std::string parsable_number(std::string_view line) {
  const std::string number = leading_number(line);
  if (number.empty()) return "";
  const std::string_view rest = line.substr(number.size());
  const bool has_cluster = rest.size() > 1 && rest[0] == ';' && rest.find_first_of(" \t") == std::string_view::npos;
  return rest.empty() || has_cluster ? number : "";
}

std::string announced_number(std::string_view line) {
  constexpr std::string_view kWords = "submitted batch job ";
  const auto found = std::search(line.begin(), line.end(), kWords.begin(), kWords.end(),
                                 [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; });
  if (found == line.end()) return "";
  const std::string_view rest = trimmed(line.substr(static_cast<std::size_t>(found - line.begin()) + kWords.size()));
  const std::string number = leading_number(rest);
  // "12abc" is no number; "12." and "12 on cluster east" are.
  const bool has_end =
      rest.size() == number.size() || std::isalnum(static_cast<unsigned char>(rest[number.size()])) == 0;
  return has_end ? number : "";
}

std::set<std::string> numbers(const std::string& text, std::string (*number_of)(std::string_view)) {
  std::set<std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (std::string number = number_of(trimmed(line)); !number.empty()) found.insert(std::move(number));
  }
  return found;
}

// Whether the request may have reached slurmctld all the same.
bool may_have_arrived(const std::string& words) {
  if (words.find("connect failure") != std::string::npos || words.find("Connection refused") != std::string::npos) {
    return false;
  }
  return sweep::is_controller_silent(words);
}

}  // namespace

std::optional<std::string> find_job_number(const std::string& text) {
  const std::string plain = plain_text(text);
  const std::set<std::string> parsable = numbers(plain, parsable_number);
  if (parsable.size() == 1) return *parsable.begin();
  // Of several, a wrapper has printed some.
  const std::set<std::string> announced = numbers(plain, announced_number);
  if (announced.size() == 1) return *announced.begin();
  return std::nullopt;
}

SbatchAnswer read_sbatch_answer(const sweep::ProgramOutput& output) {
  std::optional<std::string> job = find_job_number(output.out);
  if (!job) job = find_job_number(output.err);
  const std::string words = output.words();
  // Also of one that ended in time, but left something behind that kept its output open.
  if (output.exit_code == 0 && job) return {SbatchAnswer::Kind::kQueued, *job, ""};
  if (output.is_timed_out || sweep::is_signalled(output.exit_code)) return {SbatchAnswer::Kind::kUnclear, "", words};
  if (output.exit_code == 0) return {SbatchAnswer::Kind::kUnclear, "", "it names no job: " + words};
  // A failure that names a job: one of a wrapper's, behind sbatch.
  const bool is_unclear = job || output.err.empty() || may_have_arrived(words);
  return {is_unclear ? SbatchAnswer::Kind::kUnclear : SbatchAnswer::Kind::kRefused, "", words};
}

}  // namespace winnow::slurm
