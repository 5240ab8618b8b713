// winnow search: joint selection of the layers that keep full attention, step by step on the model itself.
#include <memory>
#include <string>

#include "jobs/cli/commands/commands.h"
#include "jobs/cli/run_flags.h"
#include "pipeline/verbs/search.h"

namespace winnow::commands {
namespace {

struct Flags {
  verbs::SearchOptions options;
  std::string max_memory;
};

void add_search_flags(const cli::Verb& verb, verbs::SearchOptions& options) {
  const char* kGroup = "Search";
  verb.add_option("--method", options.method,
                  "greedy-forward (from all windowed, gives one more layer full attention in each step), "
                  "greedy-backward (from all full, windows one more), or pairs (how two windowed layers interact)")
      .required()
      .type_name("NAME")
      .group(kGroup);
  verb.add_option("--keep", options.keep,
                  "Layers that keep full attention at the end; of pairs the number of layers, those that cost most "
                  "alone, whose pairs are measured")
      .required()
      .type_name("K")
      .group(kGroup);
  verb.add_option("--objective", options.objective,
                  "What a step minimises: nll, exact-match (maximised; ties by NLL) or kl to full attention (default: "
                  "nll)")
      .type_name("NAME")
      .group(kGroup);
  verb.add_option("--beam", options.beam, "Patterns that each step goes on from (default: 1)")
      .type_name("B")
      .group(kGroup);
  verb.add_flag("--exact", options.exact,
                "Window every row in every step, instead of the answer and the 256 rows before it (default: off)")
      .group(kGroup);
  verb.add_option("--verify", options.verify,
                  "Measure the best pattern of every K with every row under the window, and N of the rejected ones "
                  "(default: none)")
      .type_name("N")
      .group(kGroup);
  verb.add_option("--verify-examples", options.verify_examples,
                  "Examples that --verify measures, the first ones: fewer cost less (default: all)")
      .type_name("N")
      .group(kGroup);
}

int run(const Flags& flags) {
  verbs::SearchOptions options = flags.options;
  cli::complete_options(options, flags.max_memory);
  const verbs::SearchPresenter present = [&options](const search::SearchResults& results,
                                                    const storage::Provenance& provenance) {
    return options.json ? search::to_json(results, provenance) : search::to_table(results, provenance);
  };
  return static_cast<int>(verbs::search(options, present));
}

}  // namespace

Command add_search(const cli::Verb& program) {
  const auto flags = std::make_shared<Flags>();
  const cli::Verb verb = program.add_subcommand(
      "search", "Searches layers that keep full attention together, each step measured on the model");
  cli::add_input_flags(verb, flags->options, "Calibration file (winnow prepare makes one)");
  cli::add_limit_flag(verb, flags->options);
  add_search_flags(verb, flags->options);
  cli::add_window_flags(verb, flags->options);
  verb.flag("--tail-rows")
      .description("Rows before the answer that obey the window, besides the answer (default: 256; see --exact)");
  cli::add_native_window_flag(verb, flags->options);
  cli::add_seed_flag(verb, flags->options);
  cli::add_machine_flags(verb, flags->options, flags->max_memory);
  cli::add_printing_flags(verb, flags->options);
  verb.footer(
      "\nA step sweeps the tail of every example against cached keys and values: a small part of a forward pass for a\n"
      "pattern. The result is RUN_DIR/results.h5, group /selection/METHOD; winnow select reads it. Repeating the\n"
      "command resumes, also with another --keep, --beam or --method.\n\nExample:\n"
      "  mpirun -n 2 winnow search --model Qwen3-4B --data calibration.h5 --window 2048 --out search \\\n"
      "    --method greedy-forward --keep 9 --verify 16\n"
      "  winnow select search --method greedy-forward --keep 9 --out selection.json\n");
  return {verb, [flags] { return run(*flags); }};
}

}  // namespace winnow::commands
