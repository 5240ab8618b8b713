// Provides what the process that a shell, a scheduler or a container has made may lack.
#pragma once

#include <string>
#include <vector>

namespace winnow::cli {

// Takes the first steps of the program, before it opens or starts anything:
//   - a closed standard file (>&-) gets a stand-in that cannot be read or written, so that no data file takes
//     its number and is mistaken for it. Programs that are started from here find it closed;
//   - an empty PATH gets the system's folders, for mpirun, Python and the programs of other verbs;
//   - a limit of the size of files (ulimit -f) is a failed write, with its exit code, and no signal;
//   - stop signals, which waited until now, take effect: a verb that can go on where it was stopped remembers them.
// Throws Error(kOutOfMemory) where stack or address space are too small for the program (ulimit -s, -v, -d).
void prepare_surroundings(const std::vector<std::string>& arguments);

}  // namespace winnow::cli
