// winnow evaluate: how well whole patterns of full and windowed layers answer on a held-out set.
#include <memory>
#include <string>

#include "jobs/cli/commands/commands.h"
#include "jobs/cli/run_flags.h"
#include "pipeline/verbs/evaluate.h"

namespace winnow::commands {
namespace {

struct Flags {
  verbs::EvaluateOptions options;
  std::string max_memory;
};

void add_patterns(const cli::Verb& verb, verbs::EvaluateOptions& options) {
  verb.add_option("--pattern", options.patterns,
                  "Pattern to evaluate: full, windowed, periodic:K@O (layers i with i mod K = O keep full attention), "
                  "first:K, last:K, random:SEED:K, list:1,4,5, or a selection FILE.json of winnow select; may be "
                  "repeated. full is always evaluated, too")
      .required()
      .type_name("PATTERN")
      .one_value_each()
      .group("What is measured");
  verb.add_option("--baseline", options.baseline,
                  "Pattern, by its name in the table, that all are compared with besides full (default: none)")
      .type_name("NAME")
      .group("Statistics");
}

void add_generation(const cli::Verb& verb, verbs::EvaluateOptions& options) {
  const char* kGroup = "Free generation";
  verb.add_option("--generate", options.generate,
                  "Tokens that every pattern writes at most after each prompt, greedily, with the key-value cache that "
                  "it would be served with: sinks and a rolling window in windowed layers (default: none)")
      .type_name("N")
      .in_range(int64_t{1}, int64_t{1} << 20)
      .group(kGroup);
  verb.add_option(
          "--stop-tokens", options.stop_tokens,
          "Token ids that end a text, such as 151645,151643, or none (default: eos_token_id of the checkpoint's "
          "generation_config.json, else of its config.json)")
      .type_name("IDS")
      .group(kGroup);
  verb.add_option("--responses", options.responses,
                  "File for what was written, a line of JSON a text with its token ids (default: none)")
      .type_name("FILE.jsonl")
      .group(kGroup);
}

int run(const Flags& flags) {
  verbs::EvaluateOptions options = flags.options;
  cli::complete_options(options, flags.max_memory);
  const verbs::EvaluationPresenter present = [&options](const evaluation::EvaluationResults& results) {
    return options.json ? evaluation::to_json(results) : evaluation::to_table(results);
  };
  return static_cast<int>(verbs::evaluate(options, present));
}

}  // namespace

Command add_evaluate(const cli::Verb& program) {
  const auto flags = std::make_shared<Flags>();
  const cli::Verb verb = program.add_subcommand(
      "evaluate", "Measures how well whole patterns of full and windowed layers answer on a held-out set");
  cli::add_input_flags(verb, flags->options, "Held-out set in the format of a calibration file");
  cli::add_limit_flag(verb, flags->options);
  cli::add_window_flags(verb, flags->options);
  add_patterns(verb, flags->options);
  cli::add_native_window_flag(verb, flags->options);
  add_generation(verb, flags->options);
  cli::add_seed_flag(verb, flags->options);
  cli::add_machine_flags(verb, flags->options, flags->max_memory);
  cli::add_printing_flags(verb, flags->options);
  verb.footer(
      "\nAlone or under mpirun / srun: ranks share the examples. The result is RUN_DIR/results.h5, group /evaluation.\n"
      "Repeating the command resumes; patterns may be added, and what is measured is not measured again.\n\nExample:\n"
      "  mpirun -n 2 winnow evaluate --model Qwen3-4B --data test.h5 --window 2048 --out evaluation \\\n"
      "    --pattern periodic:4@0 --pattern nll9.json --baseline periodic:4@0\n");
  return {verb, [flags] { return run(*flags); }};
}

}  // namespace winnow::commands
