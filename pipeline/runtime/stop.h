// Signals that ask a run to stop, and how much of the unit in flight it may still finish.
#pragma once

#include <array>
#include <csignal>
#include <iterator>
#include <string>

#include "base/stop_signals.h"

namespace winnow::runtime {

// Urgency of a stop. It is sent between ranks as an integer, so the values are fixed.
enum class StopKind : int {
  kNone = 0,
  kGrace = 1,  // the unit in flight may be finished within the grace time
  kNow = 2,    // drop the unit at the next layer
};

// Remembers SIGUSR1, SIGTERM and SIGINT from now on, for the StopSignals or the SignalQueue that comes: the first steps
// of a program that can be resumed must not die by them.
void remember_stop_signals();
// Returns the signal that was remembered last, 0 where there was none; it counts as handled from then on.
int take_remembered_signal();

// Installs handlers of SIGUSR1, SIGTERM and SIGINT that only set a flag. The former handlers come back on destruction.
// There is one object at a time in a process. It takes over a signal that was remembered before.
//
// USR1 asks with grace. TERM does so too, except under mpirun, which kills the job a few seconds after it. INT (Ctrl-C)
// means now.
class StopSignals {
 public:
  explicit StopSignals(bool under_mpirun);
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();

  StopKind kind() const;
  std::string name() const;  // of the signal that came: "SIGUSR1"; "" when none

 private:
  bool under_mpirun_;
  std::array<struct sigaction, std::size(kStopSignals)> former_{};
};

// Returns true if a unit must be dropped: a pure function of times, in seconds.
//   remaining_grace  seconds until the grace time ends, negative when over
//   elapsed          seconds that the unit has run
//   predicted        seconds that the whole unit is expected to take
// With kGrace a unit goes on while its predicted end lies within the grace time. A unit that has outlived its
// prediction goes on until the grace time is over.
bool must_drop_unit(StopKind kind, double remaining_grace, double elapsed, double predicted);

}  // namespace winnow::runtime
