// winnow evaluate: how well whole patterns of full and windowed layers answer on a held-out set.
#include "pipeline/verbs/evaluate.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/run_flags.h"
#include "results/evaluation/table.h"

namespace winnow::commands {
namespace {

int run(const run::RunOptions& options) {
  return static_cast<int>(verbs::evaluate(options, [&](const evaluation::EvaluationResults& results) {
    return options.json ? evaluation::to_json(results) : evaluation::to_table(results);
  }));
}

}  // namespace

Command add_evaluate(const cli::Verb& program) {
  const cli::Verb verb = program.add_subcommand(
      "evaluate", "Measures how well whole patterns of full and windowed layers answer on a held-out set");
  const auto options = cli::add_run_flags(verb, run::Verb::kEvaluate);
  verb.footer(
      "\nAlone or under mpirun / srun: ranks share the examples. The result is RUN_DIR/results.h5, group /evaluation.\n"
      "Repeating the command resumes; patterns may be added, and what is measured is not measured again.\n\nExample:\n"
      "  mpirun -n 2 winnow evaluate --model Qwen3-4B --data test.h5 --window 2048 --out evaluation \\\n"
      "    --pattern periodic:4@0 --pattern nll9.json --baseline periodic:4@0\n");
  return {verb, [options] { return run(options()); }};
}

}  // namespace winnow::commands
