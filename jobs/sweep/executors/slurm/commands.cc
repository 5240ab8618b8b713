#include "jobs/sweep/executors/slurm/commands.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <sstream>

#include "base/error.h"
#include "base/strings.h"

namespace winnow::slurm {
namespace {

constexpr int kDefaultMaxArraySize = 1001;   // of Slurm
constexpr std::size_t kTasksPerCall = 1000;  // a command line has an end
constexpr std::size_t kLongestWord = 65536;  // and so has one word of it, in bytes

// A controller that is busy answers late; one that is away, not at all.
constexpr std::chrono::seconds kTimeLimit{180};

// A submission from within a job must not hand on what that job was given. Variables win over the script's own options:
// with another name the job would not be found again, and with SBATCH_WAIT sbatch would wait for its end.
sweep::ProgramOptions sbatch_options() {
  return {.dropped_prefixes = {"SLURM_", "SBATCH_JOB_NAME", "SBATCH_ARRAY_INX", "SBATCH_WAIT"},
          .kept = {"SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_WAIT_ALL_NODES"},
          .time_limit = kTimeLimit};
}

// A user's own filters (SQUEUE_STATES, SQUEUE_USERS, ...) would hide jobs, and a hidden one is queued a second time.
sweep::ProgramOptions squeue_options() {
  return {.dropped_prefixes = {"SQUEUE_"}, .kept = {}, .time_limit = kTimeLimit};
}

sweep::ProgramOptions scancel_options() {
  return {.dropped_prefixes = {"SCANCEL_"}, .kept = {}, .time_limit = kTimeLimit};
}

sweep::ProgramOutput call(const std::vector<std::string>& words, const sweep::ProgramOptions& options) {
  const std::optional<sweep::ProgramOutput> output = sweep::run_program(words, options);
  if (!output) {
    fail(ExitCode::kUnavailable, words.front() +
                                     " is not on PATH: there is no Slurm here; log in to a node that has it "
                                     "(module load slurm?), or run the sweep with --executor local");
  }
  return *output;
}

std::vector<std::string> split(const std::string& text, char mark, std::size_t at_most) {
  std::vector<std::string> fields;
  std::size_t begin = 0;
  while (fields.size() + 1 < at_most) {
    const std::size_t end = text.find(mark, begin);
    if (end == std::string::npos) break;
    fields.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  fields.push_back(text.substr(begin));
  return fields;
}

std::optional<long> number(const std::string& text) {
  long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

bool is_one_of(const std::string& word, std::initializer_list<const char*> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::optional<OwnState> parse_own_state(const std::string& line) {
  const std::vector<std::string> fields = split(line.substr(0, line.find('\n')), '|', 3);
  if (fields.size() != 3) return std::nullopt;
  const std::optional<long> used = slurm_seconds(fields[1]);
  const std::optional<long> limit = slurm_seconds(fields[2]);
  return OwnState{.state = fields[0], .is_timed_out = used && limit && *used >= *limit};
}

}  // namespace

bool QueuedTask::is_running() const {
  return is_one_of(
      state, {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"});
}

bool QueuedTask::is_live() const {
  if (is_running()) return true;
  return is_one_of(state, {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}) &&
         reason != "DependencyNeverSatisfied";
}

std::vector<QueuedTask> parse_queue(const std::string& text) {
  std::vector<QueuedTask> tasks;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> fields = split(line, '|', 5);
    if (fields.size() != 5 || !number(fields[0])) continue;
    const std::optional<long> task = number(fields[1]);
    if (!task) continue;  // no array
    tasks.push_back({fields[0], static_cast<int>(*task), fields[2], fields[3], fields[4]});
  }
  return tasks;
}

std::vector<QueuedTask> ask_queue(const std::vector<std::string>& job_names) {
  std::vector<QueuedTask> tasks;
  for (std::size_t begin = 0; begin < job_names.size();) {
    std::string names;
    for (; begin < job_names.size() && (names.empty() || names.size() + job_names[begin].size() < kLongestWord);
         ++begin) {
      names += (names.empty() ? "" : ",") + job_names[begin];
    }
    const sweep::ProgramOutput output =
        call({"squeue", "--noheader", "--array", "--name=" + names, std::string("--format=") + kQueueFormat},
             squeue_options());
    if (output.exit_code != 0 || output.is_timed_out || output.is_cut) {
      fail(ExitCode::kUnavailable, "squeue does not answer: " + output.words() + "; try again when Slurm is back");
    }
    const std::vector<QueuedTask> more = parse_queue(output.out);
    tasks.insert(tasks.end(), more.begin(), more.end());
  }
  return tasks;
}

std::optional<OwnState> ask_own_state(const std::string& job) {
  const std::optional<sweep::ProgramOutput> output =
      sweep::run_program({"squeue", "--noheader", "--jobs=" + job, "--format=%T|%M|%l"}, squeue_options());
  if (!output || output->exit_code != 0) return std::nullopt;
  return parse_own_state(output->out);
}

int max_array_size() {
  const std::optional<sweep::ProgramOutput> output = sweep::run_program(
      {"scontrol", "show", "config"}, {.dropped_prefixes = {}, .kept = {}, .time_limit = kTimeLimit});
  if (!output) return kDefaultMaxArraySize;
  std::istringstream lines(output->out);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, mark;
    int value = 0;
    if (words >> key >> mark >> value && key == "MaxArraySize" && value > 0) return value;
  }
  return kDefaultMaxArraySize;
}

SbatchAnswer submit_script(const std::string& script, const std::vector<std::string>& options) {
  std::vector<std::string> words = {"sbatch", "--parsable"};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back(script);
  return read_sbatch_answer(call(words, sbatch_options()));
}

void cancel_tasks(const std::vector<std::string>& pending, const std::vector<std::string>& others) {
  for (const std::vector<std::string>* tasks : {&pending, &others}) {
    for (std::size_t begin = 0; begin < tasks->size(); begin += kTasksPerCall) {
      const std::size_t end = std::min(tasks->size(), begin + kTasksPerCall);
      std::vector<std::string> words = {"scancel", "--quiet"};
      words.insert(words.end(), tasks->begin() + static_cast<std::ptrdiff_t>(begin),
                   tasks->begin() + static_cast<std::ptrdiff_t>(end));
      const sweep::ProgramOutput output = call(words, scancel_options());
      if (output.exit_code != 0) {
        fail(ExitCode::kUnavailable, "scancel: " + output.words() + "; squeue shows what is left");
      }
    }
  }
}

// "minutes", "minutes:seconds", "hours:minutes:seconds", "days-hours", "days-hours:minutes[:seconds]".
std::optional<long> slurm_seconds(const std::string& time) {
  const std::size_t dash = time.find('-');
  const std::optional<long> days = dash == std::string::npos ? 0 : number(time.substr(0, dash));
  const std::vector<std::string> fields = split(time.substr(dash == std::string::npos ? 0 : dash + 1), ':', 4);
  if (!days || fields.size() > 3) return std::nullopt;
  std::vector<long> parts;
  for (const std::string& field : fields) {
    const std::optional<long> part = number(field);
    if (!part) return std::nullopt;
    parts.push_back(*part);
  }
  parts.resize(3, 0);
  if (dash != std::string::npos || fields.size() == 3) {
    return *days * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2];
  }
  return parts[0] * 60 + parts[1];
}

std::string sbatch_quoted(const std::string& word) {
  if (word.find_first_of("\n\r") != std::string::npos) {
    fail(ExitCode::kUsage, "'" + word + "' has a line feed, which sbatch cannot read; use another name");
  }
  if (is_plain_word(word)) return word;
  std::string text = "\"";
  for (const char c : word) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

}  // namespace winnow::slurm
