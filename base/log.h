// Log lines of the verbs that measure.
#pragma once

namespace winnow {

// Sends log lines to stderr from now on, with the time, if this process speaks for its job; else drops them.
void start_log(bool is_speaker);

}  // namespace winnow
