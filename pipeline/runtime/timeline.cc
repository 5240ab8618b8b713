#include "pipeline/runtime/timeline.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <numeric>
#include <sstream>
#include <utility>

#include "base/terminal_table.h"

namespace winnow::runtime {

const std::array<PartName, kParts>& part_names() {
  static constexpr std::array<PartName, kParts> names = {{
      {"process", "start of the process, its libraries, command line"},
      {"mpi", "MPI"},
      {"inputs", "configuration, headers of the checkpoint, data"},
      {"device", "device: context, products, memory of the weights"},
      {"libraries", "library of attention"},
      {"hash", "hash of the checkpoint"},
      {"run_directory", "run directory and its finished units"},
      {"exchange", "communicators between ranks"},
      {"weights", "weights"},
      {"rates", "measuring the speed"},
      {"planning", "planning"},
      {"first_unit", "first unit"},
      {"measuring", "other units"},
      {"asking", "asking for units"},
      {"waiting", "waiting for other ranks, before and after"},
      {"last_units", "waiting for the last units of other ranks"},
      {"sums", "sums over ranks"},
      {"profile", "the profile itself"},
      {"statistics", "statistics"},
      {"results", "writing results"},
      {"teardown", "giving memory and devices back"},
      {"other", "all else"},
  }};
  return names;
}

double seconds_since_process_start() {
  // Field 22 of stat, in ticks since the machine was started; what stands before the last bracket may have blanks.
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t bracket = text.rfind(')');
  if (bracket == std::string::npos) return 0.0;
  std::istringstream fields(text.substr(bracket + 1));
  constexpr int kBefore = 19;
  std::string skipped;
  for (int i = 0; i < kBefore; ++i) fields >> skipped;
  double ticks = 0.0;
  timespec now{};
  if (!(fields >> ticks) || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0.0;
  const double start = ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
  return std::max(0.0, static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9 - start);
}

Timeline::Timeline(double elapsed, Now now) : now_(std::move(now)), last_(now_()) {
  seconds_[static_cast<std::size_t>(Part::kProcess)] = elapsed;
}

void Timeline::enter(Part part) {
  const double now = now_();
  seconds_[static_cast<std::size_t>(part_)] += now - last_;
  last_ = now;
  part_ = part;
}

std::vector<double> Timeline::seconds() {
  enter(part_);
  return {seconds_.begin(), seconds_.end()};
}

std::string Timeline::to_text(std::span<const double> seconds) {
  std::ostringstream text;
  text.precision(17);
  for (const double value : seconds) text << value << ' ';
  return text.str();
}

std::vector<double> Timeline::from_text(const std::string& text) {
  std::vector<double> seconds(kParts, 0.0);
  std::istringstream values(text);
  for (double& value : seconds) {
    if (!(values >> value)) value = 0.0;
  }
  return seconds;
}

std::string timeline_table(const std::vector<std::vector<double>>& ranks) {
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table({{.width = 52}, {kRight, 10}, {kRight, 10}, {kRight, 6}}, 1);
  table.add({"from the start of the process on", "rank 0", "most", "rank"});
  const auto add = [&](const std::string& what, const std::vector<double>& seconds) {
    const auto most = std::ranges::max_element(seconds);
    table.add(
        {what, number(seconds.front(), "{:.3f}"), number(*most, "{:.3f}"), std::to_string(most - seconds.begin())});
  };
  constexpr double kShown = 0.0005;
  for (std::size_t part = 0; part < kParts; ++part) {
    std::vector<double> seconds;
    for (const std::vector<double>& rank : ranks) seconds.push_back(rank[part]);
    if (std::ranges::max(seconds) >= kShown) add(part_names()[part].what, seconds);
  }
  std::vector<double> totals;
  for (const std::vector<double>& rank : ranks) totals.push_back(std::accumulate(rank.begin(), rank.end(), 0.0));
  add("total, s", totals);
  return table.text();
}

}  // namespace winnow::runtime
