#include "jobs/sweep/failed_launch.h"

#include <algorithm>
#include <array>
#include <fstream>

namespace winnow::sweep {
namespace {

// Lines that srun prints before any task runs, and that another try may not meet: a node that has just been lost or is
// not back yet, a socket of a dead step, a credential that is too old. What no try will change (a wrong --mpi, a
// program that is missing) has other words.
bool is_refusal(const std::string& line) {
  constexpr std::array<const char*, 7> kWords = {
      "launch failed",  // "task 1 launch failed: ...", "Application launch failed: ..."
      "Task launch for",
      "Unable to create step",
      "Job step creation temporarily disabled",
      "Unable to confirm allocation",
      "Timed out waiting for job step",
      "Job credential",
  };
  return is_controller_silent(line) || std::any_of(kWords.begin(), kWords.end(), [&](const char* words) {
           return line.find(words) != std::string::npos;
         });
}

// "winnow 10:00:00 ..." or "winnow: ...", behind the number that `srun --label` puts in front.
bool is_of_a_rank(const std::string& line) {
  std::size_t begin = line.find_first_not_of(" 0123456789");
  if (begin != std::string::npos && begin > 0 && line[begin] == ':') begin = line.find_first_not_of(' ', begin + 1);
  if (begin == std::string::npos) return false;
  return line.compare(begin, 7, "winnow ") == 0 || line.compare(begin, 7, "winnow:") == 0;
}

}  // namespace

LaunchReport read_launch(const std::filesystem::path& log) {
  LaunchReport report;
  std::ifstream in(log, std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    if (is_of_a_rank(line)) {
      report.has_begun = true;
      break;
    }
    if (is_refusal(line)) report.last_refusal = line;
  }
  return report;
}

bool is_failed_launch(const LaunchReport& report, int exit_code) {
  return !report.has_begun && (exit_code == 0 || !report.last_refusal.empty());
}

bool is_controller_silent(const std::string& words) {
  constexpr std::array<const char*, 6> kSilences = {
      "Unable to contact slurm controller", "Socket timed out",     "Connection refused",
      "Zero Bytes were transmitted",        "Connection timed out", "Unexpected message received"};
  return std::any_of(kSilences.begin(), kSilences.end(),
                     [&](const char* silence) { return words.find(silence) != std::string::npos; });
}

}  // namespace winnow::sweep
