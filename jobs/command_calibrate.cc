// winnow calibrate: measures every layer of a model on a calibration set.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "jobs/commands.h"
#include "jobs/present.h"
#include "jobs/run_flags.h"
#include "pipeline/calibrate.h"

namespace winnow {
namespace {

// Flags that need more than CLI11 to be understood are kept as text until the verb runs.
struct Flags {
  CalibrateOptions options;
  std::vector<std::string> controls;
  std::string max_memory;
};

void add_inputs(CLI::App& verb, Flags& flags) {
  CalibrateOptions& o = flags.options;
  add_input_flags(verb, o, "Calibration file (winnow prepare makes one)");
  verb.add_option(
          "--control", flags.controls,
          "Control set of short prompts, to tell long context from sensitivity; may be repeated (default: none)")
      ->type_name("NAME=FILE")
      ->check(refusal_of("--control", [](const std::string& text) { parse_control(text); }))
      ->allow_extra_args(false)
      ->group("Inputs and output");
  add_limit_flag(verb, o);
}

void add_measurement(CLI::App& verb, Flags& flags) {
  const char* kGroup = "What is measured";
  CalibrateOptions& o = flags.options;
  add_window_flags(verb, o);
  verb.add_option("--layers", o.layers, "Layers to measure, such as 0-11,20 (default: all)")
      ->type_name("LIST")
      ->group(kGroup);
  verb.add_option("--base", o.base,
                  "Pattern that each layer is changed in: full, windowed, or list:1,4 for the layers with full "
                  "attention (default: full)")
      ->type_name("PATTERN")
      ->group(kGroup);
  verb.add_flag("--per-token", o.per_token, "Keep the NLL of every answer token too (default: off)")->group(kGroup);
  add_native_window_flag(verb, o);
}

void add_statistics(CLI::App& verb, Flags& flags) {
  CalibrateOptions& o = flags.options;
  verb.add_option("--top-k", o.top_k, "Layers that are to keep full attention, of those measured (default: a quarter)")
      ->type_name("K")
      ->group("Statistics");
  add_seed_flag(verb, o);
}

int run(const Flags& flags) {
  CalibrateOptions options = flags.options;
  for (const std::string& control : flags.controls) options.controls.push_back(parse_control(control));
  complete_options(options, flags.max_memory);
  const Presenter present = [&options](const Results& results) { return present_results(results, options.json); };
  return static_cast<int>(calibrate(options, present));
}

}  // namespace

Command add_calibrate(CLI::App& program) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb = program.add_subcommand(
      "calibrate", "Measures how much worse the model predicts the answers when one layer alone is windowed");
  add_inputs(*verb, *flags);
  add_measurement(*verb, *flags);
  add_statistics(*verb, *flags);
  add_machine_flags(*verb, flags->options, flags->max_memory);
  add_printing_flags(*verb, flags->options);
  verb->footer(
      "\nAlone or under mpirun / srun: ranks share the examples. The result is RUN_DIR/results.h5.\n\nExample:\n"
      "  mpirun -n 2 winnow calibrate --model Qwen3-4B --data calibration.h5 --control short=short.h5 \\\n"
      "    --window 2048 --out run\n");
  return {verb, [flags] { return run(*flags); }};
}

}  // namespace winnow
