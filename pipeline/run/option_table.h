// The table of options: what a run of calibrate, search or evaluate can be asked for, each described once. From it come
// the flags of the command line with their help, the keys of --config, the keys of sweep files and their JSON Schema,
// the command line and the name of a sweep's cell, and the checks of single values. A new option is a member of
// RunOptions and a row here.
#pragma once

#include <string>
#include <vector>

#include "pipeline/run/option.h"

namespace winnow::run {

// All options, in the order of the help. A name stands there twice where verbs explain it in other words.
const std::vector<Option>& option_table();
// Those of a verb, each once.
std::vector<const Option*> options_of(Verb verb);
// Throws std::out_of_range for a name that the verb does not take.
const Option& find_option(Verb verb, const std::string& name);

}  // namespace winnow::run
