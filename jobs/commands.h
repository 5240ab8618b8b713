// The verbs of the command line: one file per verb, jobs/command_<verb>.cc. A verb is thin: flags, one call, print.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace winnow {

// A verb with its flags declared. `run` is called when the command line (or the file of --config) named the verb and
// everything parsed; its value is the exit code. It may throw: the one catch is in jobs/main.cc.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;
  bool has_config = true;  // takes --config
};

// Each adds its verb to the program. Flags live in an object that `run` shares.
Command add_calibrate(CLI::App& program);
Command add_evaluate(CLI::App& program);
Command add_search(CLI::App& program);
Command add_stats(CLI::App& program);
Command add_inspect(CLI::App& program);
Command add_bench(CLI::App& program);
Command add_export(CLI::App& program);
Command add_select(CLI::App& program);
Command add_selftest(CLI::App& program);
Command add_sweep(CLI::App& program);

}  // namespace winnow
