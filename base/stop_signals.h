// The signals that ask a run to stop, named once.
#pragma once

#include <csignal>

namespace winnow {

// Arrays of C: before_main.cc reads them when nothing of C++ is there yet.
// A run that can be resumed ends by these with what it has.
inline constexpr int kStopSignals[] = {SIGUSR1, SIGTERM, SIGINT};
// Those that wait from the program's first step until it has decided what they mean: also a terminal's end.
inline constexpr int kHeldSignals[] = {SIGUSR1, SIGTERM, SIGINT, SIGHUP};

}  // namespace winnow
