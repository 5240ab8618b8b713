// Turns the command line into a verb that is ready to run.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace winnow::program {

// Finds the verb in `arguments` (the program's name not among them), reads its flags, --config file included, and
// returns what to run. For help and version, what comes back prints them and returns 0. A verb that is not built in
// replaces the process by its program. Throws Error(kUsage) for an unknown verb or flag and for a value that does not
// parse, Error(kNoInput) for an unreadable config file.
std::function<int()> parse_command_line(const std::vector<std::string>& arguments);

}  // namespace winnow::program
