#include "pipeline/run/work_loop.h"

#include <cstdio>
#include <utility>

#include "base/error.h"
#include "pipeline/engine/sweep.h"

namespace winnow::run {

WorkLoop::WorkLoop(runtime::MpiSession& session, const runtime::StopSignals& signals, double grace_seconds,
                   int64_t n_units, runtime::Dispatcher::OnDone on_done)
    : session_(session),
      signals_(signals),
      grace_seconds_(grace_seconds),
      dispatcher_(session, n_units, [this, show = std::move(on_done)](std::optional<int64_t> unit, double seconds) {
        if (unit) ++n_done_;
        show(unit, seconds);
      }) {}

void WorkLoop::run(const Take& take, const Work& work) {
  try {
    work_until_nothing_is_left(take, work);
  } catch (...) {
    // The peers are in the middle of their units, which may take long: the job ends here. Alone, the caller returns.
    dispatcher_.claim_error();
    throw runtime::AgreedFailure{session_.end_job()};
  }
  const runtime::Timeline::Scope part(session_.timeline(), runtime::Part::kLastUnits);
  dispatcher_.finish();
  session_.agree([] {});
  std::vector<int64_t> done{n_done_};
  session_.broadcast(done);
  n_done_ = done[0];
}

void WorkLoop::work_until_nothing_is_left(const Take& take, const Work& work) {
  bool is_first = !session_.timeline().has(runtime::Part::kFirstUnit);
  while (true) {
    const runtime::Timeline::Scope asking(session_.timeline(), runtime::Part::kAsking);
    dispatcher_.poll_stop(signals_.kind());
    const std::vector<int64_t> units = take();
    if (units.empty()) return;
    // A stop that came while this rank waited for its answer: the units stay undone.
    if (dispatcher_.poll_stop(signals_.kind()) != runtime::StopKind::kNone) continue;
    const runtime::Timeline::Scope working(session_.timeline(),
                                           is_first ? runtime::Part::kFirstUnit : runtime::Part::kMeasuring);
    try {
      work(units);
    } catch (const engine::Interrupted&) {
    }
    is_first = false;
  }
}

bool WorkLoop::must_stop(double elapsed, double predicted) {
  const runtime::StopKind kind = dispatcher_.poll_stop(signals_.kind());
  if (kind == runtime::StopKind::kNone) return false;
  if (!stop_time_) stop_time_ = Clock::now();
  return runtime::must_drop_unit(kind, grace_seconds_ - seconds_since(*stop_time_), elapsed, predicted);
}

void say_stopped(const std::string& signal, int64_t n_done, std::size_t n_units, const char* what,
                 const std::filesystem::path& run_directory) {
  std::fprintf(stderr,
               "winnow: stopped%s: %lld of %zu %s are done and kept in %s; the same command goes on from there\n",
               signal.empty() ? "" : (" by " + signal).c_str(), static_cast<long long>(n_done), n_units, what,
               one_line(run_directory.string()).c_str());
}

}  // namespace winnow::run
