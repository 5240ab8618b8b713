// winnow search: joint selection of the layers that keep full attention, step by step on the model itself.
#include "pipeline/verbs/search.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/run_flags.h"
#include "pipeline/verbs/plan_search.h"
#include "results/plan/table.h"
#include "results/search/table.h"

namespace winnow::commands {
namespace {

int run(const run::RunOptions& options) {
  if (options.method == search::search_method_name(search::SearchMethod::kPlan)) {
    return static_cast<int>(
        verbs::search_plans(options, [&](const plan::SearchedPlans& found, const storage::Provenance& provenance) {
          return options.json ? plan::to_json(found, provenance) : plan::to_table(found, provenance);
        }));
  }
  return static_cast<int>(
      verbs::search(options, [&](const search::SearchResults& results, const storage::Provenance& provenance) {
        return options.json ? search::to_json(results, provenance) : search::to_table(results, provenance);
      }));
}

}  // namespace

Command add_search(const cli::Verb& program) {
  const cli::Verb verb = program.add_subcommand(
      "search", "Searches layers that keep full attention together, each step measured on the model");
  const auto options = cli::add_run_flags(verb, run::Verb::kSearch);
  verb.footer(
      "\nA step sweeps the tail of every example against cached keys and values: a small part of a forward pass for a\n"
      "pattern. The result is RUN_DIR/results.h5, group /selection/METHOD; winnow select reads it. Repeating the\n"
      "command resumes, also with another --keep, --beam or --method.\n\nExample:\n"
      "  mpirun -n 2 winnow search --model Qwen3-4B --data calibration.h5 --window 2048 --out search \\\n"
      "    --method greedy-forward --keep 9 --verify 16\n"
      "  winnow select search --method greedy-forward --keep 9 --out selection.json\n"
      "  mpirun -n 2 winnow search --model Qwen3-4B --data calibration.h5 --from calibration --out plans \\\n"
      "    --method plan --budget 12.5%@131072 --budget 25%@131072 --engine trtllm --verify 16\n"
      "  winnow plan plans --budget 25%@131072 --out plan.json\n");
  return {verb, [options] { return run(options()); }};
}

}  // namespace winnow::commands
