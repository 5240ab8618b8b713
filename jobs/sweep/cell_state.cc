#include "jobs/sweep/cell_state.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <sstream>
#include <type_traits>

#include "base/error.h"
#include "base/node.h"
#include "jobs/sweep/child.h"
#include "jobs/sweep/failed_launch.h"
#include "jobs/sweep/files.h"
#include "pipeline/runtime/lock.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

constexpr int kMostAttempts = 1'000'000'000;

bool is_there(const fs::path& path) {
  struct stat ignored {};
  return ::stat(path.c_str(), &ignored) == 0;
}

// A whole number that fits, at most kMostAttempts either way: nothing here is larger.
std::optional<int> int_of(const nlohmann::json& json) {
  if (!json.is_number_integer()) return std::nullopt;
  if (json.is_number_unsigned() && json.get<uint64_t>() > kMostAttempts) return std::nullopt;
  const auto value = json.get<int64_t>();
  if (value > kMostAttempts || value < -kMostAttempts) return std::nullopt;
  return static_cast<int>(value);
}

// One line of a size that a table can show.
std::string shortened(const std::string& text) {
  constexpr std::size_t kLongest = 1000;
  return one_line(text.size() <= kLongest ? text : text.substr(0, kLongest) + "...");
}

// Why an attempt ended, for a table.
std::string reason_of(const AttemptRecord& record) {
  if (!record.error.empty()) return shortened(record.error);
  if (record.ended.empty()) return "run-cell on " + shortened(record.host) + " was killed or lost its node";
  if (!record.exit_code) return "ended with an exit code that its record does not tell";
  return *record.exit_code == 0 ? "" : "exit code " + std::to_string(*record.exit_code);
}

void read_progress(const Cell& cell, CellStatus& status) {
  const std::optional<nlohmann::json> json = read_json(cell.run_directory / "progress.json");
  if (!json || !json->is_object()) return;
  const auto number = [&](const char* name) -> std::optional<double> {
    const auto found = json->find(name);
    if (found == json->end() || !found->is_number()) return std::nullopt;
    return found->get<double>();
  };
  const double done = number("cells_done").value_or(0.0);
  const double total = number("cells_total").value_or(0.0);
  if (total > 0.0) status.progress = std::clamp(done / total, 0.0, 1.0);
  status.eta_seconds = number("eta_seconds");
}

// What the last attempt says of a cell that nothing runs.
void judge(const AttemptRecord& record, CellStatus& status) {
  const bool is_interrupted = record.is_stopped || record.ended.empty() ||
                              (record.exit_code && is_repeatable(*record.exit_code)) ||
                              record.exit_code.value_or(1) == 0;
  if (!is_interrupted) {
    status.state = CellState::kFailed;
  } else if (record.failed_launches > 0) {
    const bool is_given_up = record.failed_launches >= kMostFailedLaunches;
    status.state = is_given_up ? CellState::kFailed : CellState::kInterrupted;
    if (is_given_up) {
      status.last_error =
          "given up after " + std::to_string(record.failed_launches) + " failed launches: " + status.last_error;
    }
  } else if (!record.is_stopped && record.of_submission >= record.max_attempts && record.exit_code.value_or(1) != 0) {
    status.state = CellState::kFailed;
    status.last_error = "given up after " + std::to_string(record.of_submission) + " attempts: " + status.last_error;
  } else {
    status.state = CellState::kInterrupted;
  }
}

}  // namespace

nlohmann::json AttemptRecord::to_json() const {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::json() : nlohmann::json(text);
  };
  return {{"attempt", attempt},
          {"submission", submission},
          {"of_submission", of_submission},
          {"max_attempts", max_attempts},
          {"host", host},
          {"started", started},
          {"ended", text_or_null(ended)},
          {"exit_code", exit_code ? nlohmann::json(*exit_code) : nlohmann::json()},
          {"error", text_or_null(error)},
          {"is_stopped", is_stopped},
          {"failed_launches", failed_launches},
          {"slurm_job", text_or_null(slurm_job)},
          {"slurm_task", text_or_null(slurm_task)},
          {"command", command}};
}

AttemptRecord AttemptRecord::from_json(const nlohmann::json& json) {
  AttemptRecord record;
  const auto take = [&](const char* name, auto& field) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) return;
    using Field = std::remove_reference_t<decltype(field)>;
    // Somebody may have edited it: what does not fit is as if it was not there.
    if constexpr (std::is_same_v<Field, int>) {
      if (const std::optional<int> number = int_of(*found)) field = *number;
    } else {
      try {
        found->get_to(field);
      } catch (const nlohmann::json::exception&) {
      }
    }
  };
  if (!json.is_object()) return record;
  take("attempt", record.attempt);
  take("submission", record.submission);
  take("of_submission", record.of_submission);
  take("max_attempts", record.max_attempts);
  take("host", record.host);
  take("started", record.started);
  take("ended", record.ended);
  take("error", record.error);
  take("is_stopped", record.is_stopped);
  take("failed_launches", record.failed_launches);
  take("slurm_job", record.slurm_job);
  take("slurm_task", record.slurm_task);
  take("command", record.command);
  if (const auto found = json.find("exit_code"); found != json.end()) record.exit_code = int_of(*found);
  return record;
}

fs::path attempt_record(const fs::path& run_directory, int attempt) {
  return run_directory / "attempts" / (std::to_string(attempt) + ".json");
}

fs::path attempt_log(const fs::path& run_directory, int attempt) {
  return run_directory / "attempts" / (std::to_string(attempt) + ".log");
}

std::vector<int> list_attempts(const fs::path& run_directory) {
  std::vector<int> attempts;
  std::error_code error;
  for (fs::directory_iterator entry(run_directory / "attempts", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    int number = 0;
    const auto [rest, failure] = std::from_chars(name.data(), name.data() + name.size(), number);
    const bool is_number = failure == std::errc() && number > 0 && number < kMostAttempts;
    if (is_number && std::string(rest) == ".json") attempts.push_back(number);
  }
  std::sort(attempts.begin(), attempts.end());
  return attempts;
}

bool is_repeatable(int exit_code) {
  return exit_code == static_cast<int>(ExitCode::kInterrupted) || exit_code == static_cast<int>(ExitCode::kInternal) ||
         exit_code >= 128;
}

bool is_done(const Cell& cell) {
  // Every seed's statistics are computed from the measurement with seed 0, which is written first.
  return is_there(cell.results(0)) &&
         std::all_of(cell.seeds.begin(), cell.seeds.end(), [&](uint64_t seed) { return is_there(cell.results(seed)); });
}

CellStatus cell_status(const Cell& cell, const std::map<std::string, QueueEntry>& queue) {
  CellStatus status;
  if (is_done(cell)) {
    status.state = CellState::kDone;
    status.progress = 1.0;
    status.attempts = static_cast<int>(list_attempts(cell.run_directory).size());
    return status;
  }
  const std::vector<int> attempts = list_attempts(cell.run_directory);
  AttemptRecord last;
  if (!attempts.empty()) {
    const fs::path record = attempt_record(cell.run_directory, attempts.back());
    const auto json = read_json(record);
    const bool is_record = json && json->is_object();
    if (is_record) last = AttemptRecord::from_json(*json);
    status.attempts = static_cast<int>(attempts.size());
    status.log = attempt_log(cell.run_directory, attempts.back());
    status.exit_code = last.exit_code;
    status.last_error = is_record ? reason_of(last) : record.string() + " is no record of an attempt";
    read_progress(cell, status);
  }
  const auto entry = queue.find(cell.name);
  if (entry != queue.end()) status.job = entry->second.job;
  // run-cell holds the lock from its first step to its last, on whatever host it is.
  const bool is_held =
      is_there(cell.run_directory / "cell.lock") && runtime::is_locked(cell.run_directory / "cell.lock", host_name());
  if (is_held || (entry != queue.end() && entry->second.state == CellState::kRunning)) {
    status.state = CellState::kRunning;
    if (last.ended.empty()) status.last_error.clear();
  } else if (entry != queue.end()) {
    status.state = CellState::kQueued;
    status.last_error = entry->second.reason;
    status.eta_seconds.reset();
  } else if (!attempts.empty()) {
    judge(last, status);
    status.eta_seconds.reset();
  }
  return status;
}

const char* state_name(CellState state) {
  switch (state) {
    case CellState::kWaiting:
      return "waiting";
    case CellState::kQueued:
      return "queued";
    case CellState::kRunning:
      return "running";
    case CellState::kInterrupted:
      return "interrupted";
    case CellState::kDone:
      return "done";
    case CellState::kFailed:
      return "failed";
  }
  return "unknown";
}

namespace {

// The messages of Open MPI's launcher, which it frames with rules of dashes: the first paragraph says what is wrong,
// the last what it thinks of that.
class FramedMessages {
 public:
  void read(const std::string& line) {
    const bool is_rule = line.size() > 40 && line.find_first_not_of('-') == std::string::npos;
    if (is_rule) {
      if (is_inside_ && !paragraph_.empty()) {
        (paragraph_.find("non-zero") == std::string::npos ? reason_ : news_) = paragraph_;
      }
      is_inside_ = !is_inside_;
      is_first_ = true;
      paragraph_.clear();
    } else if (line.empty()) {
      is_first_ = paragraph_.empty();
    } else if (is_inside_ && is_first_) {
      paragraph_ += (paragraph_.empty() ? "" : " ") + line;
    }
  }
  // Of the last message that is more than the news that a process has ended, else of that; "" where there is none.
  std::string reason() const { return reason_.empty() ? news_ : reason_; }

 private:
  bool is_inside_ = false;
  bool is_first_ = true;  // whether the first paragraph is not over
  std::string paragraph_;
  std::string reason_;
  std::string news_;
};

}  // namespace

std::string last_error_line(const fs::path& log) {
  constexpr std::streamoff kTail = std::streamoff{64} * 1024;
  std::error_code not_there;
  if (!fs::is_regular_file(log, not_there)) return "";  // a pipe would be waited for
  std::ifstream in(log, std::ios::binary);
  if (!in) return "";
  in.seekg(0, std::ios::end);
  in.seekg(std::max<std::streamoff>(0, static_cast<std::streamoff>(in.tellg()) - kTail));
  std::string error;
  std::string lettered;
  FramedMessages messages;
  for (std::string line; std::getline(in, line);) {
    // A line that a terminal would rewrite: its last state.
    if (const std::size_t rewritten = line.rfind('\r'); rewritten != std::string::npos) line.erase(0, rewritten + 1);
    const bool has_letter = std::any_of(line.begin(), line.end(), [](unsigned char c) { return std::isalpha(c) != 0; });
    if (has_letter) lettered = line;
    // mpirun may put an own line after ours, which says less.
    if (line.starts_with("winnow: ")) error = line.substr(std::string("winnow: ").size());
    messages.read(line);
  }
  // It goes to tables on a terminal, and a program may have printed anything.
  if (!error.empty()) return shortened(error);
  return shortened(messages.reason().empty() ? lettered : messages.reason());
}

}  // namespace winnow::sweep
