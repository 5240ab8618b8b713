// The flags of the verbs that measure: the table of options (pipeline/run/options/option_table.h) on the command line.
#pragma once

#include <functional>

#include "jobs/cli/flags.h"
#include "pipeline/run/options/options.h"

namespace winnow::cli {

// Adds a flag to the verb for each option that `of` takes, in the order of the table. The result returns, once the
// command line was parsed, its options and what provenance records of the program.
std::function<run::RunOptions()> add_run_flags(const Verb& verb, run::Verb of);

}  // namespace winnow::cli
