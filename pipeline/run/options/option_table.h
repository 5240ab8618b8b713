// The table of options of calibrate, search and evaluate, each described once. From it come the flags of the command
// line with their help, the keys of --config, the keys of sweep files and their JSON Schema, the command line and the
// name of a sweep's cell, and the checks of single values. A new option is a member of RunOptions and a row here.
#pragma once

#include <string>
#include <vector>

#include "pipeline/run/options/option.h"

namespace winnow::run {

// Returns all options, in the order of the help. A name is there twice where verbs explain it in other words.
const std::vector<Option>& option_table();
// Returns those of a verb, each once.
std::vector<const Option*> options_of(Verb verb);
// Returns the option of that name. Throws std::out_of_range where the verb does not take it.
const Option& find_option(Verb verb, const std::string& name);

}  // namespace winnow::run
