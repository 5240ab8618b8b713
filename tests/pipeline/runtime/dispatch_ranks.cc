// What dispatch_test.cc starts with mpirun. Exit codes: 0 right, 1 wrong.
//
//   dispatch_ranks units     each unit is handed out once and reported once, to whatever rank asks
//   dispatch_ranks stop      the last rank asks for a stop: every rank hears of it and gets no more units
//   dispatch_ranks errors    every rank fails: one of them may say so
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "pipeline/runtime/dispatch.h"

namespace winnow::runtime {
namespace {

constexpr int kWrong = 1;

int say_wrong(const MpiSession& session, const std::string& what) {
  std::fprintf(stderr, "%s%s\n", session.prefix().c_str(), what.c_str());
  return kWrong;
}

// Rank 0's count of what is reported: plain numbers, since on_done is called under a lock.
struct Reports {
  std::vector<int> of_unit;
  int n_ticks = 0;

  Dispatcher::OnDone on_done() {
    return [this](std::optional<int64_t> unit, double) {
      if (unit) {
        ++of_unit[static_cast<std::size_t>(*unit)];
      } else {
        ++n_ticks;
      }
    };
  }
};

int test_units(MpiSession& session) {
  constexpr int64_t kUnits = 3000;
  Reports reports{.of_unit = std::vector<int>(kUnits)};
  Dispatcher dispatcher(session, kUnits, reports.on_done());
  int64_t n_own = 0;
  while (const auto unit = dispatcher.next()) {
    dispatcher.poll_stop(StopKind::kNone);
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    dispatcher.report_done(*unit, 0.001);
    ++n_own;
  }
  dispatcher.finish();
  const std::vector<double> n_done = session.gather(static_cast<double>(n_own));
  if (std::accumulate(n_done.begin(), n_done.end(), 0.0) != static_cast<double>(kUnits)) {
    return say_wrong(session, "the ranks have not done as many units as there are");
  }
  if (!session.is_root()) return 0;
  if (reports.n_ticks < n_own) return say_wrong(session, "progress cannot be shown between units");
  const bool is_once = std::ranges::all_of(reports.of_unit, [](int count) { return count == 1; });
  return is_once ? 0 : say_wrong(session, "a unit was not reported once");
}

int test_stop(MpiSession& session) {
  constexpr int64_t kUnits = 1000000;  // minutes, were it not for the stop
  Reports reports{.of_unit = std::vector<int>(kUnits)};
  Dispatcher dispatcher(session, kUnits, reports.on_done());
  int64_t n_own = 0;
  StopKind heard = StopKind::kNone;
  while (const auto unit = dispatcher.next()) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    dispatcher.report_done(*unit, 0.0002);
    ++n_own;
    const bool asks = session.rank() == session.size() - 1 && n_own >= 20;
    heard = dispatcher.poll_stop(asks ? StopKind::kGrace : StopKind::kNone);
  }
  heard = dispatcher.poll_stop(StopKind::kNone);
  dispatcher.finish();
  if (heard != StopKind::kGrace) return say_wrong(session, "units end without news of the stop");
  const std::vector<double> n_done = session.gather(static_cast<double>(n_own));
  if (!session.is_root()) return 0;
  const int64_t n_reported = std::reduce(reports.of_unit.begin(), reports.of_unit.end(), int64_t{0});
  if (std::ranges::any_of(reports.of_unit, [](int count) { return count > 1; })) {
    return say_wrong(session, "a unit was reported twice");
  }
  return n_reported == static_cast<int64_t>(std::accumulate(n_done.begin(), n_done.end(), 0.0)) && n_reported < kUnits
             ? 0
             : say_wrong(session, "what was reported is not what was done");
}

// The first to claim prints its line and ends the job with its code; the others wait for that end.
int test_errors(MpiSession& session) {
  Dispatcher dispatcher(session, 1, [](auto, double) {});
  session.minimum(1);  // all are there: who is not answered for two seconds speaks
  dispatcher.claim_error();
  try {
    fail(ExitCode::kBadData, "everything fails");
  } catch (...) {
    return static_cast<int>(session.end_job());
  }
}

int run(const std::string& test) {
  MpiSession session;
  try {
    if (test == "units") return test_units(session);
    if (test == "stop") return test_stop(session);
    return test == "errors" ? test_errors(session) : static_cast<int>(ExitCode::kUsage);
  } catch (...) {
    return static_cast<int>(session.end_job());
  }
}

}  // namespace
}  // namespace winnow::runtime

int main(int argc, char** argv) { return argc == 2 ? winnow::runtime::run(argv[1]) : 64; }
