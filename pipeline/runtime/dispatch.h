// Hands work units to ranks on request, and carries the news of a stop.
//
// On rank 0 a server thread answers the others, because MPI's one-sided counters make no progress over TCP while rank 0
// computes. It looks for messages and sleeps in between: a blocking receive of Open MPI would keep a core busy. Rank
// 0's own worker takes from the same counter without a message.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "pipeline/runtime/session.h"
#include "pipeline/runtime/stop.h"

namespace winnow::runtime {

class Dispatcher {
 public:
  // Called on rank 0 for every finished unit with its index and the seconds it took, under a lock, from its worker or
  // from the server thread; and now and then with no unit, so that progress can be shown.
  using OnDone = std::function<void(std::optional<int64_t> unit, double seconds)>;

  // Starts the server on rank 0. Units are numbered 0 to n_units - 1 in the order in which they are handed out.
  // Collective.
  Dispatcher(const MpiSession& session, int64_t n_units, OnDone on_done);
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;
  ~Dispatcher();

  // Returns the next unit for this rank; none where nothing is left or the run stops.
  std::optional<int64_t> next();
  // Says that a unit of this rank is finished and on disk.
  void report_done(int64_t unit, double seconds);
  // Polls for the most urgent stop that any rank has asked for, and returns it. `own` is what this rank's signals ask
  // for.
  StopKind poll_stop(StopKind own);
  // Lets one of the ranks that fail say so. Returns at once for the first that calls it; the others wait here for the
  // end that it brings to the job, and return only when that does not come.
  void claim_error();
  // Ends this rank's part, once it has reported all its units and wants no more: rank 0 waits for those of the others.
  // Collective.
  void finish();

 private:
  void serve();
  bool serve_one();  // whether there was a message
  void spread_stop(StopKind kind);
  void take_stop_notes();

  const MpiSession& session_;
  const int64_t n_units_;
  OnDone on_done_;
  std::mutex mutex_;                           // on_done_
  std::atomic<int64_t> next_{0};               // rank 0: first unit that nobody has
  std::atomic<int> stop_{0};                   // StopKind as known to this rank
  std::atomic<bool> error_is_claimed_{false};  // rank 0
  int told_stop_ = 0;                          // most urgent stop that this rank has sent on
  int active_peers_ = 0;                       // rank 0: ranks that have not finished
  std::vector<bool> peer_active_;              // rank 0
  std::thread server_;
};

}  // namespace winnow::runtime
