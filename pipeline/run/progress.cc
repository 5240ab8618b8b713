#include "pipeline/run/progress.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/strings.h"

namespace winnow::run {

Progress::Progress(std::span<const WorkUnit> units, double expected_seconds)
    : expected_seconds_(expected_seconds), is_terminal_(isatty(STDERR_FILENO) != 0) {
  for (const WorkUnit& unit : units) {
    cost_seconds_.push_back(unit.cost_seconds);
    n_cells_.push_back(unit.n_cells());
    total_cost_ += unit.cost_seconds;
  }
}

Progress::~Progress() {
  try {
    if (!file_.empty() && !end_is_shown_) write_file();  // a run that was stopped says how far it came
  } catch (const std::exception&) {
    // Memory for a few lines was not to be had: what stopped the run is told by others.
  }
  if (line_is_open_) std::fputs("\n", stderr);
}

void Progress::done(int64_t unit) {
  const auto index = static_cast<std::size_t>(unit);
  ++units_done_;
  cells_done_ += n_cells_[index];
  done_cost_ += cost_seconds_[index];
  tick();
}

double Progress::seconds_left() const {
  const double elapsed = seconds_since(begin_);
  const double share = total_cost_ > 0.0 ? done_cost_ / total_cost_ : 1.0;
  const double total = units_done_ > 0 && share > 0.0 ? elapsed / share : expected_seconds_;
  return std::max(0.0, total - elapsed);
}

std::string Progress::line() const {
  const double elapsed = seconds_since(begin_);
  const double share = total_cost_ > 0.0 ? done_cost_ / total_cost_ : 1.0;
  const double rate = elapsed > 0.0 ? static_cast<double>(cells_done_) / elapsed : 0.0;
  return fmt::format("{:3.0f} % | {} of {} units | {:.2f} cells/s | {} gone, about {} to go", 100.0 * share,
                     units_done_, cost_seconds_.size(), rate, format_duration(elapsed),
                     format_duration(seconds_left()));
}

void Progress::keep_in(const std::filesystem::path& run_directory, int64_t cells_before, int64_t cells_total) {
  file_ = run_directory / "progress.json";
  cells_before_ = cells_before;
  cells_total_ = cells_total;
  write_file();
}

void Progress::write_file() {
  last_written_ = Clock::now();
  const std::string text = nlohmann::json{{"units_done", units_done_},
                                          {"units_total", cost_seconds_.size()},
                                          {"cells_done", cells_before_ + cells_done_},
                                          {"cells_total", cells_total_},
                                          {"eta_seconds", seconds_left()},
                                          {"updated", utc_now()}}
                               .dump(2) +
                           "\n";
  try {
    write_file_atomically(file_, text);
  } catch (const Error&) {
    // It only informs. A full disk stops the run where it matters, at the next shard.
  }
}

void Progress::tick() {
  using std::chrono::milliseconds;
  const auto now = Clock::now();
  const bool is_end = units_done_ == static_cast<int64_t>(cost_seconds_.size());
  const auto pause = is_terminal_ ? milliseconds(200) : milliseconds(30000);
  if (!file_.empty() && ((is_end && !end_is_shown_) || now - last_written_ >= std::chrono::seconds(5))) write_file();
  if (is_end && end_is_shown_) return;
  end_is_shown_ = is_end;
  if (!is_end && now - last_shown_ < pause) return;
  last_shown_ = now;
  if (is_terminal_) {
    std::fprintf(stderr, "\r\033[K%s", line().c_str());
    std::fflush(stderr);
    line_is_open_ = true;
  } else {
    spdlog::info(line());
  }
}

}  // namespace winnow::run
