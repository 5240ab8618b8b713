// Shares numbered units out among all ranks: each takes the next one, until nothing is left or the run stops.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "pipeline/runtime/dispatch.h"
#include "pipeline/runtime/session.h"
#include "pipeline/runtime/stop.h"

namespace winnow::run {

class WorkLoop {
 public:
  // Makes the dispatcher. `grace_seconds` is what the unit in flight has after a stop, `on_done` is the Dispatcher's.
  // Collective.
  WorkLoop(runtime::MpiSession& session, const runtime::StopSignals& signals, double grace_seconds, int64_t n_units,
           runtime::Dispatcher::OnDone on_done);
  WorkLoop(const WorkLoop&) = delete;
  WorkLoop& operator=(const WorkLoop&) = delete;

  // Returns the units that this rank does next; none where it wants no more.
  using Take = std::function<std::vector<int64_t>()>;
  // Does the units, keeps their results, and calls report_done() for each; leaves them undone where it throws
  // engine::Interrupted.
  using Work = std::function<void(const std::vector<int64_t>& units)>;
  // Calls both in turn. A failure of either ends the job. Collective. Throws AgreedFailure.
  void run(const Take& take, const Work& work);

  // Returns the next unit that nobody has, for `take`; none where nothing is left or the run stops.
  std::optional<int64_t> next() { return dispatcher_.next(); }
  // Says that a unit is finished and on disk, for `work`.
  void report_done(int64_t unit, double seconds) { dispatcher_.report_done(unit, seconds); }
  // Returns true if units that have run for `elapsed` seconds of `predicted` must be dropped, for `work`.
  bool must_stop(double elapsed, double predicted);

  // Returns the units of all ranks that are done, on every rank, after run().
  int64_t n_done() const { return n_done_; }

 private:
  void work_until_nothing_is_left(const Take& take, const Work& work);

  runtime::MpiSession& session_;
  const runtime::StopSignals& signals_;
  double grace_seconds_;
  int64_t n_done_ = 0;
  std::optional<Clock::time_point> stop_time_;  // when this rank learnt of a stop
  runtime::Dispatcher dispatcher_;
};

// Brings rank 0's plan to all ranks: `plan` makes the units there, and they are sent as numbers. Collective. Throws
// AgreedFailure.
template <typename Unit>
std::vector<Unit> share_plan(runtime::MpiSession& session, const std::function<std::vector<Unit>()>& plan,
                             std::vector<int64_t> (*encode)(std::span<const Unit>),
                             std::vector<Unit> (*decode)(std::span<const int64_t>)) {
  std::vector<int64_t> message;
  session.agree_on_root([&] { message = encode(plan()); });
  session.broadcast(message);
  return decode(message);
}

// Says on stderr how far a stopped run is. `what`: "units of this run"; `signal`: the one that stopped it, "" where it
// is not named.
void say_stopped(const std::string& signal, int64_t n_done, std::size_t n_units, const char* what,
                 const std::filesystem::path& run_directory);

}  // namespace winnow::run
