// winnow calibrate: measures every layer of a model on a calibration set.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/signal_specs.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/present.h"
#include "jobs/cli/run_flags.h"
#include "pipeline/verbs/calibrate.h"

namespace winnow::commands {
namespace {

// Flags that need more than the parser of flags to be understood are kept as text until the verb runs.
struct Flags {
  run::CalibrateOptions options;
  std::vector<std::string> controls;
  std::string max_memory;
};

void add_inputs(const cli::Verb& verb, Flags& flags) {
  run::CalibrateOptions& o = flags.options;
  cli::add_input_flags(verb, o, "Calibration file (winnow prepare makes one)");
  verb.add_option(
          "--control", flags.controls,
          "Control set of short prompts, to tell long context from sensitivity; may be repeated (default: none)")
      .type_name("NAME=FILE")
      .check(cli::refusal_of("--control", [](const std::string& text) { run::parse_control(text); }))
      .one_value_each()
      .group("Inputs and output");
  cli::add_limit_flag(verb, o);
}

void add_measurement(const cli::Verb& verb, Flags& flags) {
  const char* kGroup = "What is measured";
  run::CalibrateOptions& o = flags.options;
  cli::add_window_flags(verb, o);
  verb.add_option("--layers", o.layers, "Layers to measure, such as 0-11,20 (default: all)")
      .type_name("LIST")
      .group(kGroup);
  verb.add_option("--base", o.base,
                  "Pattern that each layer is changed in: full, windowed, or list:1,4 for the layers with full "
                  "attention (default: full)")
      .type_name("PATTERN")
      .group(kGroup);
  verb.add_flag("--per-token", o.per_token, "Keep the NLL of every answer token too (default: off)").group(kGroup);
  cli::add_native_window_flag(verb, o);
}

std::string known_signals() {
  std::string text;
  for (const SignalSpec& spec : signal_specs()) text += std::string(spec.name) + " (" + spec.flag + "), ";
  return text;
}

void add_signals(const cli::Verb& verb, Flags& flags) {
  const char* kGroup = "Signals besides NLL and matches";
  run::CalibrateOptions& o = flags.options;
  verb.add_option("--signals", o.signals, known_signals() + "several with commas, or all (default: none)")
      .type_name("LIST")
      .group(kGroup);
  verb.add_option("--sensitivity", o.sensitivity,
                  "Rows that lose the attention: tail, the answer and the rows of --tail-rows (else 32) before it, or "
                  "full, all (default: tail)")
      .type_name("ROWS")
      .group(kGroup);
  verb.add_option("--lazy-sinks", o.lazy_sinks, "First keys that lazy counts, tokens (default: 4)")
      .type_name("N")
      .group(kGroup);
  verb.add_option("--lazy-recent", o.lazy_recent, "Last keys that lazy counts, tokens (default: 1024)")
      .type_name("N")
      .group(kGroup);
  verb.add_option("--lazy-last", o.lazy_last, "Last queries that lazy looks at, tokens (default: 32)")
      .type_name("N")
      .group(kGroup);
}

void add_statistics(const cli::Verb& verb, Flags& flags) {
  run::CalibrateOptions& o = flags.options;
  verb.add_option("--top-k", o.top_k, "Layers that are to keep full attention, of those measured (default: a quarter)")
      .type_name("K")
      .group("Statistics");
  cli::add_seed_flag(verb, o);
}

int run(const Flags& flags) {
  run::CalibrateOptions options = flags.options;
  for (const std::string& control : flags.controls) options.controls.push_back(run::parse_control(control));
  cli::complete_options(options, flags.max_memory);
  const verbs::Presenter present = [&options](const calibration::Results& results) {
    return cli::present_results(results, options.json);
  };
  return static_cast<int>(verbs::calibrate(options, present));
}

}  // namespace

Command add_calibrate(const cli::Verb& program) {
  const auto flags = std::make_shared<Flags>();
  const cli::Verb verb = program.add_subcommand(
      "calibrate", "Measures how much worse the model predicts the answers when one layer alone is windowed");
  add_inputs(verb, *flags);
  add_measurement(verb, *flags);
  add_signals(verb, *flags);
  add_statistics(verb, *flags);
  cli::add_machine_flags(verb, flags->options, flags->max_memory);
  cli::add_printing_flags(verb, flags->options);
  verb.footer(
      "\nAlone or under mpirun / srun: ranks share the examples. The result is RUN_DIR/results.h5.\n\nExample:\n"
      "  mpirun -n 2 winnow calibrate --model Qwen3-4B --data calibration.h5 --control short=short.h5 \\\n"
      "    --window 2048 --out run\n");
  return {verb, [flags] { return run(*flags); }};
}

}  // namespace winnow::commands
