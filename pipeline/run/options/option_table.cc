#include "pipeline/run/options/option_table.h"

#include <stdexcept>

#include "pipeline/run/options/measurement_options.h"

namespace winnow::run {
namespace {

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

std::vector<Option> race_options() {
  return {
      {.name = "until",
       .field = &RunOptions::until,
       .verbs = kCalibrate,
       .value = "P",
       .help = "Take examples, 16, 24, 32, 48, ..., only until no other layers would be kept, with the probability P "
               "such as 95%, under any window and type of keys and values that layers are measured with; a layer whose "
               "place is certain is left out of further ones",
       .absent = "all examples, all layers",
       .part = Part::kExtent,
       .sweep = SweepUse::kNever},
      {.name = "until-budgets",
       .field = &RunOptions::until_budgets,
       .verbs = kCalibrate,
       .value = "K,K",
       .help = "Of --until: numbers of layers with full attention for which that is to hold",
       .absent = "an eighth, a quarter and a half of the measured layers, and --top-k",
       .part = Part::kExtent,
       .sweep = SweepUse::kNever},
      {.name = "until-tolerance",
       .field = &RunOptions::until_tolerance,
       .verbs = kCalibrate,
       .value = "LOSS",
       .help = "Of --until: loss for which one layer may as well be kept in another's place: 1% of what windowing "
               "all layers costs, or 0.01 nats per token",
       .absent = "1%",
       .part = Part::kExtent,
       .sweep = SweepUse::kNever}};
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
          {.name = "stream",
           .field = &RunOptions::stream,
           .value = "WHEN",
           .help = "Keep no layer in the GPU's memory but bring each there when it is its turn, for models that are "
                   "larger: on, off, or auto (as far as the memory does not hold them). No figure changes",
           .absent = "auto",
           .choices = {"auto", "on", "off"},
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
  const std::vector<Group> groups = {
      {"Inputs and output", input_options()},    {"Search", search_options()},
      {"Search for plans", plan_options()},      {"What is measured", window_options()},
      {"What is measured", pattern_options()},   {"Signals besides NLL and matches", signal_options()},
      {"Statistics", statistics_options()},      {"As many examples as needed", race_options()},
      {"Free generation", generation_options()}, {"Machine", machine_options()},
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
