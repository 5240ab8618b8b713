// Reads --config FILE: the flags of a verb from a YAML file, under the same names without the dashes.
//
//   model: /models/Qwen3-4B
//   window: 2048
//   control: [short=short.h5, middle=middle.h5]
//   per-token: true
//
// Flags of the command line win. Paths are relative to where the command runs, as they are for flags.
#pragma once

#include <string>
#include <vector>

#include "jobs/cli/flags.h"

namespace winnow::cli {

// Returns `arguments` of `verb` (the verb not among them) with the flags of the file that --config names put before
// them; as they are when it names none. Throws Error(kNoInput) when the file cannot be read, Error(kBadData) when it is
// larger than 1 MiB, Error(kUsage) with file, line and column for what is not a YAML map of flags: an unknown name, one
// given twice, a value of the wrong kind.
std::vector<std::string> with_config_file(const Verb& verb, const std::vector<std::string>& arguments);

}  // namespace winnow::cli
