// winnow calibrate: measures every layer of a model on a calibration set.
#include "pipeline/verbs/calibrate.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/present.h"
#include "jobs/cli/run_flags.h"

namespace winnow::commands {
namespace {

int run(const run::RunOptions& options) {
  return static_cast<int>(verbs::calibrate(
      options, [&](const calibration::Results& results) { return cli::present_results(results, options.json); }));
}

}  // namespace

Command add_calibrate(const cli::Verb& program) {
  const cli::Verb verb = program.add_subcommand(
      "calibrate", "Measures how much worse the model predicts the answers when one layer alone is windowed");
  const auto options = cli::add_run_flags(verb, run::Verb::kCalibrate);
  verb.footer(
      "\nAlone or under mpirun / srun: ranks share the examples. The result is RUN_DIR/results.h5.\n\nExample:\n"
      "  mpirun -n 2 winnow calibrate --model Qwen3-4B --data calibration.h5 --control short=short.h5 \\\n"
      "    --window 2048 --out run\n");
  return {verb, [options] { return run(options()); }};
}

}  // namespace winnow::commands
