// winnow calibrate: measures every layer of a model on a calibration set.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "jobs/commands.h"
#include "jobs/present.h"
#include "pipeline/calibrate.h"
#include "pipeline/host.h"
#include "winnow_version.h"

namespace winnow {
namespace {

// Flags that need more than CLI11 to be understood are kept as text until the verb runs.
struct Flags {
  CalibrateOptions options;
  std::vector<std::string> controls;
  std::string max_memory;
};

// A check of CLI11 from a parser that throws: its message without the flag, which CLI11 puts before it.
template <typename Parse>
auto refusal_of(const std::string& flag, Parse parse) {
  return [flag, parse](const std::string& text) {
    try {
      parse(text);
      return std::string();
    } catch (const Error& error) {
      const std::string message = error.what();
      const std::string prefix = flag + ": ";
      return message.rfind(prefix, 0) == 0 ? message.substr(prefix.size()) : message;
    }
  };
}

void add_inputs(CLI::App& verb, Flags& flags) {
  CalibrateOptions& o = flags.options;
  verb.add_option("--model", o.model, "Checkpoint directory: config.json and safetensors")
      ->required()
      ->type_name("DIR")
      ->group("Inputs and output");
  verb.add_option("--data", o.data, "Calibration file (winnow prepare makes one)")
      ->required()
      ->type_name("FILE")
      ->group("Inputs and output");
  verb.add_option("--out", o.out, "Run directory; the same command on it goes on where it stopped")
      ->required()
      ->type_name("DIR")
      ->group("Inputs and output");
  verb.add_option(
          "--control", flags.controls,
          "Control set of short prompts, to tell long context from sensitivity; may be repeated (default: none)")
      ->type_name("NAME=FILE")
      ->check(refusal_of("--control", [](const std::string& text) { parse_control(text); }))
      ->allow_extra_args(false)
      ->group("Inputs and output");
  verb.add_option("--limit", o.limit, "Examples taken from every set, the first ones (default: all)")
      ->type_name("N")
      ->group("Inputs and output");
}

void add_measurement(CLI::App& verb, Flags& flags) {
  const char* kGroup = "What is measured";
  CalibrateOptions& o = flags.options;
  verb.add_option("--window", o.window, "Window of a windowed layer, tokens, a row itself included")
      ->required()
      ->type_name("W")
      ->group(kGroup);
  verb.add_option("--sinks", o.sinks, "First tokens of the sequence that every row sees besides (default: 0)")
      ->type_name("S")
      ->group(kGroup);
  verb.add_option("--decode", o.decode,
                  "Whether rows of the answer obey the window: windowed or full (default: windowed)")
      ->type_name("MODE")
      ->group(kGroup);
  verb.add_option("--target", o.target,
                  "Window rules of an engine: hf, vllm, trtllm, swaa-hf or swaa-vllm; fixes --decode (default: none)")
      ->type_name("NAME")
      ->group(kGroup);
  verb.add_option("--tail-rows", o.tail_rows,
                  "Window only the answer and the M rows before it: a fast, close estimate (default: all rows)")
      ->type_name("M")
      ->group(kGroup);
  verb.add_option("--layers", o.layers, "Layers to measure, such as 0-11,20 (default: all)")
      ->type_name("LIST")
      ->group(kGroup);
  verb.add_option("--base", o.base,
                  "Pattern that each layer is changed in: full, windowed, or list:1,4 for the layers with full "
                  "attention (default: full)")
      ->type_name("PATTERN")
      ->group(kGroup);
  verb.add_flag("--per-token", o.per_token, "Keep the NLL of every answer token too (default: off)")->group(kGroup);
  verb.add_flag("--ignore-native-window", o.ignore_native_window,
                "Measure a checkpoint that sets a window itself as if it did not (default: refuse)")
      ->group(kGroup);
}

void add_statistics(CLI::App& verb, Flags& flags) {
  CalibrateOptions& o = flags.options;
  verb.add_option("--top-k", o.top_k, "Layers that are to keep full attention, of those measured (default: a quarter)")
      ->type_name("K")
      ->group("Statistics");
  verb.add_option("--seed", o.seed, "Seed of bootstrap and permutations (default: 0)")
      ->type_name("N")
      ->group("Statistics");
}

void add_machine(CLI::App& verb, Flags& flags) {
  const char* kGroup = "Machine";
  CalibrateOptions& o = flags.options;
  verb.add_option("--device", o.device, "auto, cpu or cuda (default: auto)")->type_name("NAME")->group(kGroup);
  verb.add_option("--residual", o.residual,
                  "Type of the residual stream on a GPU: checkpoint or fp32; the CPU is fp32 throughout (default: "
                  "checkpoint)")
      ->type_name("TYPE")
      ->group(kGroup);
  verb.add_option("--attention", o.attention,
                  "Attention kernels on a GPU: auto (cuDNN where it has a plan), cudnn or own (default: auto)")
      ->type_name("NAME")
      ->group(kGroup);
  verb.add_option("--threads", o.threads,
                  "Threads of a rank (default: OMP_NUM_THREADS, else the cores shared by the ranks of a host)")
      ->type_name("N")
      ->group(kGroup);
  verb.add_option("--max-memory", flags.max_memory,
                  "Memory of a rank, bytes or such as 8G; less runs fewer layers together (default: 80 % of what is "
                  "free, shared by the ranks of a host)")
      ->type_name("SIZE")
      ->check(refusal_of("--max-memory", [](const std::string& text) { parse_bytes(text, "--max-memory"); }))
      ->group(kGroup);
  verb.add_option("--grace", o.grace_seconds,
                  "Seconds in which USR1 or TERM let a unit finish before it is dropped (default: 240)")
      ->type_name("SECONDS")
      ->group(kGroup);
  verb.add_flag("--share-gpu", o.share_gpu, "Let several ranks use one GPU (default: refuse)")->group(kGroup);
}

void add_output(CLI::App& verb, Flags& flags) {
  CalibrateOptions& o = flags.options;
  verb.add_flag("--profile", o.profile,
                "Time every operation, print a table and keep it in the result; costs a little speed (default: off)")
      ->group("Printing");
  verb.add_flag("--dry-run", o.dry_run,
                "Print time, memory and disk of this command on these ranks, and end (default: off)")
      ->group("Printing");
  verb.add_flag("--json", o.json, "Print JSON on stdout instead of a table (default: table)")->group("Printing");
}

int run(const Flags& flags) {
  CalibrateOptions options = flags.options;
  for (const std::string& control : flags.controls) options.controls.push_back(parse_control(control));
  if (!flags.max_memory.empty()) options.max_memory_bytes = parse_bytes(flags.max_memory, "--max-memory");
  options.command = command_line();
  options.version = kVersion;
  options.git_revision = kGitRevision;
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
  add_machine(*verb, *flags);
  add_output(*verb, *flags);
  verb->footer(
      "\nAlone or under mpirun / srun: ranks share the examples. The result is RUN_DIR/results.h5.\n\nExample:\n"
      "  mpirun -n 2 winnow calibrate --model Qwen3-4B --data calibration.h5 --control short=short.h5 \\\n"
      "    --window 2048 --out run\n");
  return {verb, [flags] { return run(*flags); }};
}

}  // namespace winnow
