#include "jobs/cli/run_flags.h"

#include "base/node.h"
#include "winnow_version.h"

namespace winnow::cli {

void add_input_flags(const Verb& verb, run::RunOptions& options, const std::string& data) {
  verb.add_option("--model", options.model, "Checkpoint directory: config.json and safetensors")
      .required()
      .type_name("DIR")
      .group("Inputs and output");
  verb.add_option("--data", options.data, data).required().type_name("FILE").group("Inputs and output");
  verb.add_option("--out", options.out, "Run directory; the same command on it goes on where it stopped")
      .required()
      .type_name("DIR")
      .group("Inputs and output");
}

void add_limit_flag(const Verb& verb, run::RunOptions& options) {
  verb.add_option("--limit", options.limit, "Examples taken from every set, the first ones (default: all)")
      .type_name("N")
      .group("Inputs and output");
}

void add_window_flags(const Verb& verb, run::RunOptions& options) {
  const char* kGroup = "What is measured";
  verb.add_option("--window", options.window, "Window of a windowed layer, tokens, a row itself included")
      .required()
      .type_name("W")
      .group(kGroup);
  verb.add_option("--sinks", options.sinks, "First tokens of the sequence that every row sees besides (default: 0)")
      .type_name("S")
      .group(kGroup);
  verb.add_option("--decode", options.decode,
                  "Whether rows of the answer obey the window: windowed or full (default: windowed)")
      .type_name("MODE")
      .group(kGroup);
  verb.add_option("--target", options.target,
                  "Window rules of an engine: hf, vllm, trtllm, swaa-hf or swaa-vllm; fixes --decode (default: none)")
      .type_name("NAME")
      .group(kGroup);
  verb.add_option("--tail-rows", options.tail_rows,
                  "Window only the answer and the M rows before it: a fast, close estimate (default: all rows)")
      .type_name("M")
      .group(kGroup);
}

void add_native_window_flag(const Verb& verb, run::RunOptions& options) {
  verb.add_flag("--ignore-native-window", options.ignore_native_window,
                "Measure a checkpoint that sets a window itself as if it did not (default: refuse)")
      .group("What is measured");
}

void add_seed_flag(const Verb& verb, run::RunOptions& options) {
  verb.add_option("--seed", options.seed, "Seed of bootstrap and permutations (default: 0)")
      .type_name("N")
      .group("Statistics");
}

void add_machine_flags(const Verb& verb, run::RunOptions& options, std::string& max_memory) {
  const char* kGroup = "Machine";
  verb.add_option("--device", options.device, "auto, cpu or cuda (default: auto)").type_name("NAME").group(kGroup);
  verb.add_option("--residual", options.residual,
                  "Type of the residual stream on a GPU: checkpoint or fp32; the CPU is fp32 throughout (default: "
                  "checkpoint)")
      .type_name("TYPE")
      .group(kGroup);
  verb.add_option("--attention", options.attention,
                  "Attention kernels on a GPU: auto (cuDNN where it has a plan), cudnn or own (default: auto)")
      .type_name("NAME")
      .group(kGroup);
  verb.add_option("--threads", options.threads,
                  "Threads of a rank (default: OMP_NUM_THREADS, else the cores shared by the ranks of a host)")
      .type_name("N")
      .group(kGroup);
  verb.add_option("--max-memory", max_memory,
                  "Memory of a rank, bytes or such as 8G; less runs fewer layers together (default: 80 % of what is "
                  "free, shared by the ranks of a host)")
      .type_name("SIZE")
      .check(refusal_of("--max-memory", [](const std::string& text) { run::parse_bytes(text, "--max-memory"); }))
      .group(kGroup);
  verb.add_option("--grace", options.grace_seconds,
                  "Seconds in which USR1 or TERM let a unit finish before it is dropped (default: 240)")
      .type_name("SECONDS")
      .group(kGroup);
  verb.add_flag("--share-gpu", options.share_gpu, "Let several ranks use one GPU (default: refuse)").group(kGroup);
}

void add_printing_flags(const Verb& verb, run::RunOptions& options) {
  verb.add_flag("--profile", options.profile,
                "Time every operation, print a table and keep it in the result; costs a little speed (default: off)")
      .group("Printing");
  verb.add_flag("--dry-run", options.dry_run,
                "Print time, memory and disk of this command on these ranks, and end (default: off)")
      .group("Printing");
  verb.add_flag("--json", options.json, "Print JSON on stdout instead of a table (default: table)").group("Printing");
}

void complete_options(run::RunOptions& options, const std::string& max_memory) {
  if (!max_memory.empty()) options.max_memory_bytes = run::parse_bytes(max_memory, "--max-memory");
  options.command = command_line();
  options.version = kVersion;
  options.git_revision = kGitRevision;
}

}  // namespace winnow::cli
