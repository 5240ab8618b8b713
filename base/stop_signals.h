// The one list of the signals that ask a run to stop.
#pragma once

#include <csignal>

namespace winnow {

// A run that can be resumed ends by these with what it has. They are arrays of C, as before_main.cc reads them when
// nothing of C++ is there yet.
inline constexpr int kStopSignals[] = {SIGUSR1, SIGTERM, SIGINT};
// These wait from the program's first step until it has decided what they mean. SIGHUP, a terminal's end, is among
// them.
inline constexpr int kHeldSignals[] = {SIGUSR1, SIGTERM, SIGINT, SIGHUP};

}  // namespace winnow
