#include "pipeline/run/option_table.h"

#include <stdexcept>

#include "base/signal_specs.h"
#include "results/search/search.h"

namespace winnow::run {
namespace {

constexpr const char* kTokens = "tokens";

const std::vector<Verb> kCalibrate = {Verb::kCalibrate};
const std::vector<Verb> kOfSearch = {Verb::kSearch};
const std::vector<Verb> kEvaluate = {Verb::kEvaluate};
const std::vector<Verb> kCalibrateAndSearch = {Verb::kCalibrate, Verb::kSearch};
const std::vector<Verb> kCalibrateAndEvaluate = {Verb::kCalibrate, Verb::kEvaluate};

std::vector<Option> input_options() {
  return {{.name = "model",
           .field = &RunOptions::model,
           .value = "DIR",
           .help = "Checkpoint directory: config.json and safetensors",
           .is_required = true,
           .part = Part::kMeasurement,
           .identity = {"checkpoint_sha256"},
           .sweep = SweepUse::kNever},
          {.name = "data",
           .field = &RunOptions::data,
           .verbs = kCalibrateAndSearch,
           .value = "FILE",
           .help = "Calibration file (winnow prepare makes one)",
           .is_required = true,
           .part = Part::kMeasurement,
           .identity = {"data_sha256"},
           .sweep = SweepUse::kNever},
          {.name = "data",
           .field = &RunOptions::data,
           .verbs = kEvaluate,
           .value = "FILE",
           .help = "Held-out set in the format of a calibration file",
           .is_required = true,
           .part = Part::kMeasurement,
           .identity = {"data_sha256"},
           .sweep = SweepUse::kNever},
          {.name = "out",
           .field = &RunOptions::out,
           .value = "DIR",
           .help = "Run directory; the same command on it goes on where it stopped",
           .is_required = true,
           .sweep = SweepUse::kNever},
          {.name = "control",
           .field = &RunOptions::controls,
           .verbs = kCalibrate,
           .value = "NAME=FILE",
           .help = "Control set of short prompts, to tell long context from sensitivity; may be repeated",
           .absent = "none",
           .syntax = Syntax::kControl,
           .part = Part::kExtent,
           .sweep = SweepUse::kNever,
           .sweep_name = "controls"},
          {.name = "limit",
           .field = &RunOptions::limit,
           .value = "N",
           .help = "Examples taken from every set, the first ones",
           .absent = "all",
           .unit = "examples",
           .minimum = 1,
           .part = Part::kExtent}};
}

std::vector<Option> search_options() {
  return {{.name = "method",
           .field = &RunOptions::method,
           .verbs = kOfSearch,
           .value = "NAME",
           .help = "greedy-forward (from all windowed, gives one more layer full attention in each step), "
                   "greedy-backward (from all full, windows one more), or pairs (how two windowed layers interact)",
           .is_required = true,
           .choices = search::search_methods(),
           .part = Part::kExtent},
          {.name = "keep",
           .field = &RunOptions::keep,
           .verbs = kOfSearch,
           .value = "K",
           .help = "Layers that keep full attention at the end; of pairs the number of layers, those that cost most "
                   "alone, whose pairs are measured",
           .is_required = true,
           .unit = "layers",
           .minimum = 0,
           .part = Part::kExtent},
          {.name = "objective",
           .field = &RunOptions::objective,
           .verbs = kOfSearch,
           .value = "NAME",
           .help = "What a step minimises: nll, exact-match (maximised; ties by NLL) or kl to full attention",
           .absent = "nll",
           .choices = search::objectives(),
           .part = Part::kMeasurement,
           .identity = {"kind"}},
          {.name = "beam",
           .field = &RunOptions::beam,
           .verbs = kOfSearch,
           .value = "B",
           .help = "Patterns that each step goes on from",
           .absent = "1",
           .unit = "patterns",
           .minimum = 1,
           .part = Part::kExtent},
          {.name = "exact",
           .field = &RunOptions::exact,
           .verbs = kOfSearch,
           .help = "Window every row in every step, instead of the answer and the 256 rows before it",
           .absent = "off",
           .part = Part::kMeasurement,
           .identity = {"tail_rows"}},
          {.name = "verify",
           .field = &RunOptions::verify,
           .verbs = kOfSearch,
           .value = "N",
           .help = "Measure the best pattern of every K with every row under the window, and N of the rejected ones",
           .absent = "none",
           .unit = "patterns",
           .part = Part::kExtent},
          {.name = "verify-examples",
           .field = &RunOptions::verify_examples,
           .verbs = kOfSearch,
           .value = "N",
           .help = "Examples that --verify measures, the first ones: fewer cost less",
           .absent = "all",
           .unit = "examples",
           .minimum = 1,
           .part = Part::kExtent}};
}

std::vector<Option> window_options() {
  return {{.name = "window",
           .field = &RunOptions::window,
           .value = "W",
           .help = "Window of a windowed layer, tokens, a row itself included",
           .is_required = true,
           .instead = "windows",
           .unit = kTokens,
           .minimum = 1,
           .part = Part::kMeasurement,
           .identity = {"window_keys"},
           .sweep = SweepUse::kAxis,
           .sweep_name = "windows"},
          {.name = "windows",
           .field = &RunOptions::windows,
           .verbs = kCalibrate,
           .value = "LIST",
           .help = "Windows such as 512,2048,8192: every layer is measured under each in one run, for winnow plan. "
                   "--window names the one that the ranking is of",
           .absent = "--window alone; without --window the ranking is of the smallest",
           .syntax = Syntax::kWindows,
           .part = Part::kMeasurement,
           .identity = {"other_window_keys"},
           .sweep = SweepUse::kNever,
           .sweep_name = "windows_together"},
          {.name = "sinks",
           .field = &RunOptions::sinks,
           .value = "S",
           .help = "First tokens of the sequence that every row sees besides",
           .absent = "0",
           .unit = kTokens,
           .minimum = 0,
           .part = Part::kMeasurement,
           .identity = {"sinks"},
           .sweep = SweepUse::kAxis},
          {.name = "decode",
           .field = &RunOptions::decode,
           .value = "MODE",
           .help = "Whether rows of the answer obey the window: windowed or full",
           .absent = "windowed",
           .choices = {"windowed", "full"},
           .part = Part::kMeasurement,
           .identity = {"decode"},
           .sweep = SweepUse::kAxis},
          {.name = "target",
           .field = &RunOptions::target,
           .value = "NAME",
           .help = "Window rules of an engine: hf, vllm, trtllm, swaa-hf or swaa-vllm; fixes --decode. hf also gives a "
                   "layer the "
                   "positions of its type, where a family has others for windowed layers",
           .absent = "none",
           .choices = target_names(),
           .part = Part::kMeasurement,
           .identity = {"decode", "window_keys"},
           .sweep = SweepUse::kAxis,
           .sweep_name = "targets"},
          {.name = "tail-rows",
           .field = &RunOptions::tail_rows,
           .verbs = kCalibrateAndEvaluate,
           .value = "M",
           .help = "Window only the answer and the M rows before it: a fast, close estimate",
           .absent = "all rows",
           .unit = kTokens,
           .minimum = 0,
           .part = Part::kMeasurement,
           .identity = {"tail_rows"}},
          {.name = "tail-rows",
           .field = &RunOptions::tail_rows,
           .verbs = kOfSearch,
           .value = "M",
           .help = "Rows before the answer that obey the window, besides the answer",
           .absent = "256; see --exact",
           .unit = kTokens,
           .minimum = 0,
           .part = Part::kMeasurement,
           .identity = {"tail_rows"}}};
}

std::vector<Option> pattern_options() {
  return {
      {.name = "layers",
       .field = &RunOptions::layers,
       .verbs = kCalibrate,
       .value = "LIST",
       .help = "Layers to measure, such as 0-11,20",
       .absent = "all",
       .syntax = Syntax::kLayers,
       .part = Part::kExtent},
      {.name = "base",
       .field = &RunOptions::base,
       .verbs = kCalibrate,
       .value = "PATTERN",
       .help = "Pattern that each layer is changed in: full, windowed, or list:1,4 for the layers with full attention",
       .absent = "full",
       .syntax = Syntax::kBase,
       .part = Part::kMeasurement,
       .identity = {"base"}},
      {.name = "per-token",
       .field = &RunOptions::per_token,
       .verbs = kCalibrate,
       .help = "Keep the NLL of every answer token too",
       .absent = "off",
       .part = Part::kExtent},
      {.name = "pattern",
       .field = &RunOptions::patterns,
       .verbs = kEvaluate,
       .value = "PATTERN",
       .help = "Pattern to evaluate: full, windowed, periodic:K[@O] (layers i with i mod K = O keep full attention), "
               "first:K, last:K, random:[SEED:]K, list:1,4,5, or a selection FILE.json of winnow select; may be "
               "repeated. full is always evaluated, too",
       .is_required = true,
       .syntax = Syntax::kPattern,
       .part = Part::kExtent},
      {.name = "ignore-native-window",
       .field = &RunOptions::ignore_native_window,
       .help = "Measure layers that have a window of their own as if they had none",
       .absent = "they keep it"}};
}

std::string signal_help() {
  std::string text;
  for (const SignalSpec& spec : signal_specs()) text += std::string(spec.name) + " (" + spec.flag + "), ";
  return text + "several with commas, or all";
}

std::vector<Option> signal_options() {
  return {{.name = "signals",
           .field = &RunOptions::signals,
           .verbs = kCalibrate,
           .value = "LIST",
           .help = signal_help(),
           .absent = "none",
           .choices = signal_words(),
           .syntax = Syntax::kWords,
           .part = Part::kMeasurement,
           .identity = {"signals"}},
          {.name = "sensitivity",
           .field = &RunOptions::sensitivity,
           .verbs = kCalibrate,
           .value = "ROWS",
           .help = "Rows that lose the attention: tail, the answer and the rows of --tail-rows (else 32) before it, or "
                   "full, all",
           .absent = "tail",
           .choices = {"tail", "full"},
           .part = Part::kMeasurement,
           .identity = {"signals"}},
          {.name = "lazy-sinks",
           .field = &RunOptions::lazy_sinks,
           .verbs = kCalibrate,
           .value = "N",
           .help = "First keys that lazy counts, tokens",
           .absent = "4",
           .unit = kTokens,
           .minimum = 0,
           .part = Part::kMeasurement,
           .identity = {"signals"}},
          {.name = "lazy-recent",
           .field = &RunOptions::lazy_recent,
           .verbs = kCalibrate,
           .value = "N",
           .help = "Last keys that lazy counts, tokens",
           .absent = "1024",
           .unit = kTokens,
           .minimum = 1,
           .part = Part::kMeasurement,
           .identity = {"signals"}},
          {.name = "lazy-last",
           .field = &RunOptions::lazy_last,
           .verbs = kCalibrate,
           .value = "N",
           .help = "Last queries that lazy looks at, tokens",
           .absent = "32",
           .unit = kTokens,
           .minimum = 1,
           .part = Part::kMeasurement,
           .identity = {"signals"}}};
}

std::vector<Option> statistics_options() {
  return {{.name = "top-k",
           .field = &RunOptions::top_k,
           .verbs = kCalibrate,
           .value = "K",
           .help = "Layers that are to keep full attention, of those measured",
           .absent = "a quarter",
           .unit = "layers",
           .minimum = 1,
           .part = Part::kStatistics},
          {.name = "baseline",
           .field = &RunOptions::baseline,
           .verbs = kEvaluate,
           .value = "NAME",
           .help = "Pattern, by its name in the table, that all are compared with besides full",
           .absent = "none",
           .part = Part::kStatistics},
          {.name = "margin",
           .field = &RunOptions::margin,
           .verbs = kEvaluate,
           .value = "LOSS",
           .help = "Largest loss against full attention that is accepted: 1% of token accuracy, or 0.01 nats per token",
           .absent = "5 % of what the pattern with the fewest full layers loses",
           .part = Part::kStatistics},
          {.name = "seed",
           .field = &RunOptions::seed,
           .value = "N",
           .help = "Seed of bootstrap and permutations",
           .absent = "0",
           .minimum = 0,
           .part = Part::kStatistics,
           .sweep = SweepUse::kAxis,
           .sweep_name = "seeds"}};
}

std::vector<Option> generation_options() {
  return {{.name = "generate",
           .field = &RunOptions::generate,
           .verbs = kEvaluate,
           .value = "N",
           .help = "Tokens that every pattern writes at most after each prompt, greedily, with the key-value cache "
                   "that it would be served with: sinks and a rolling window in windowed layers",
           .absent = "none",
           .unit = kTokens,
           .minimum = 1,
           .maximum = int64_t{1} << 20,
           .part = Part::kExtent},
          {.name = "stop-tokens",
           .field = &RunOptions::stop_tokens,
           .verbs = kEvaluate,
           .value = "IDS",
           .help = "Token ids that end a text, such as 151645,151643, or none",
           .absent = "eos_token_id of the checkpoint's generation_config.json, else of its config.json",
           .part = Part::kExtent},
          {.name = "responses",
           .field = &RunOptions::responses,
           .verbs = kEvaluate,
           .value = "FILE.jsonl",
           .help = "File for what was written, a line of JSON a text with its token ids",
           .absent = "none",
           .syntax = Syntax::kFileName,
           .part = Part::kExtent}};
}

std::vector<Option> machine_options() {
  return {{.name = "device",
           .field = &RunOptions::device,
           .value = "NAME",
           .help = "auto, cpu or cuda",
           .absent = "auto",
           .choices = {"auto", "cpu", "cuda"},
           .part = Part::kMeasurement,
           .identity = {"backend"}},
          {.name = "residual",
           .field = &RunOptions::residual,
           .value = "TYPE",
           .help = "Type of the residual stream on a GPU: checkpoint or fp32; the CPU is fp32 throughout",
           .absent = "checkpoint",
           .choices = {"checkpoint", "fp32"},
           .part = Part::kMeasurement,
           .identity = {"residual_dtype"}},
          {.name = "attention",
           .field = &RunOptions::attention,
           .value = "NAME",
           .help = "Attention kernels on a GPU: auto, hopper (winnow's for H100 and H200: auto there), cudnn (auto "
                   "elsewhere, where it has a plan) or own (winnow's for every GPU)",
           .absent = "auto",
           .choices = {"auto", "cudnn", "own", "hopper"},
           .part = Part::kMeasurement,
           .identity = {"attention_path"}},
          {.name = "threads",
           .field = &RunOptions::threads,
           .value = "N",
           .help = "Threads of a rank",
           .absent = "OMP_NUM_THREADS, else the cores shared by the ranks of a host",
           .unit = "threads",
           .minimum = 0,
           .sweep = SweepUse::kResource},
          {.name = "max-memory",
           .field = &RunOptions::max_memory,
           .value = "SIZE",
           .help = "Memory of a rank, bytes or such as 8G; less runs fewer layers together",
           .absent = "80 % of what is free, shared by the ranks of a host",
           .unit = "bytes",
           .syntax = Syntax::kSize,
           .sweep = SweepUse::kResource},
          {.name = "grace",
           .field = &RunOptions::grace_seconds,
           .value = "SECONDS",
           .help = "Seconds in which USR1 or TERM let a unit finish before it is dropped",
           .absent = "240",
           .unit = "seconds",
           .minimum = 0},
          {.name = "share-gpu",
           .field = &RunOptions::share_gpu,
           .help = "Let several ranks use one GPU",
           .absent = "refuse",
           .sweep = SweepUse::kResource}};
}

std::vector<Option> printing_options() {
  return {{.name = "profile",
           .field = &RunOptions::profile,
           .help = "Time every operation, print a table and keep it in the result; costs a little speed",
           .absent = "off"},
          {.name = "dry-run",
           .field = &RunOptions::dry_run,
           .help = "Print time, memory and disk of this command on these ranks, and end",
           .absent = "off",
           .sweep = SweepUse::kNever},
          {.name = "json",
           .field = &RunOptions::json,
           .help = "Print JSON on stdout instead of a table",
           .absent = "table",
           .sweep = SweepUse::kNever}};
}

// Of one heading of the help, in its order.
struct Group {
  const char* heading;
  std::vector<Option> options;
};

std::vector<Option> all_options() {
  const std::vector<Group> groups = {{"Inputs and output", input_options()},
                                     {"Search", search_options()},
                                     {"What is measured", window_options()},
                                     {"What is measured", pattern_options()},
                                     {"Signals besides NLL and matches", signal_options()},
                                     {"Statistics", statistics_options()},
                                     {"Free generation", generation_options()},
                                     {"Machine", machine_options()},
                                     {"Printing", printing_options()}};
  std::vector<Option> all;
  for (const Group& group : groups) {
    for (const Option& option : group.options) {
      all.push_back(option);
      all.back().group = group.heading;
    }
  }
  return all;
}

}  // namespace

const std::vector<Option>& option_table() {
  static const std::vector<Option> kTable = all_options();
  return kTable;
}

std::vector<const Option*> options_of(Verb verb) {
  std::vector<const Option*> options;
  for (const Option& option : option_table()) {
    if (option.takes(verb)) options.push_back(&option);
  }
  return options;
}

const Option& find_option(Verb verb, const std::string& name) {
  for (const Option* option : options_of(verb)) {
    if (option->name == name) return *option;
  }
  throw std::out_of_range("winnow " + std::string(verb_name(verb)) + " has no option " + name);
}

}  // namespace winnow::run
