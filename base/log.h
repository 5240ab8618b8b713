// Log lines of the verbs that measure.
#pragma once

namespace winnow {

// From here on log lines go to stderr, with the time, if this process is the one that speaks for its job; else nowhere.
void start_log(bool is_speaker);

}  // namespace winnow
