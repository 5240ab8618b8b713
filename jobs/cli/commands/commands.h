// The verbs of the command line, each in jobs/cli/commands/VERB.cc. A verb is thin: flags, one call, print.
#pragma once

#include <functional>

#include "jobs/cli/flags.h"

namespace winnow::commands {

// A verb with its flags declared. `run` is called when the command line named the verb and everything parsed, the file
// of --config too; it returns the exit code. It may throw: the one catch is in jobs/main.cc.
struct Command {
  cli::Verb verb;
  std::function<int()> run;
  bool has_config = true;  // takes --config
};

// Each function adds its verb to the program. Flags live in an object that `run` shares.
Command add_calibrate(const cli::Verb& program);
Command add_evaluate(const cli::Verb& program);
Command add_search(const cli::Verb& program);
Command add_stats(const cli::Verb& program);
Command add_inspect(const cli::Verb& program);
Command add_bench(const cli::Verb& program);
Command add_export(const cli::Verb& program);
Command add_plan(const cli::Verb& program);
Command add_select(const cli::Verb& program);
Command add_selftest(const cli::Verb& program);
Command add_sweep(const cli::Verb& program);

}  // namespace winnow::commands
