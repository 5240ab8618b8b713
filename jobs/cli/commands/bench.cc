// winnow bench: how fast the operations and the sweep are here, beside what this machine can do.
#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/node.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "jobs/cli/commands/benchmark.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/commands/temporary_directory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "model/random_checkpoint.h"
#include "pipeline/engine/rates.h"
#include "pipeline/run/options/options.h"
#include "winnow_version.h"

namespace winnow::commands {
namespace {

struct Options {
  std::string model;
  std::string shape;
  int64_t n_layers = 4;
  int64_t n_tokens = 1024;
  int64_t answer_tokens = 32;
  int64_t window = 256;
  int64_t sinks = 0;
  std::string device = "auto";
  std::string attention = "auto";
  int n_threads = 0;
  int n_repetitions = 3;
  bool json = false;
};

// Shapes of published models; the number of layers is --layers.
struct Preset {
  std::string_view name;
  model::RandomCheckpoint shape;
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"demo", {.hidden = 128, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32, .ffn = 384, .vocab = 256}},
      {"qwen3-0.6b", {.hidden = 1024, .n_heads = 16, .n_kv_heads = 8, .head_dim = 128, .ffn = 3072, .vocab = 151936}},
      {"qwen3-4b", {.hidden = 2560, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .ffn = 9728, .vocab = 151936}},
      {"llama3-8b",
       {.model_type = "llama",
        .hidden = 4096,
        .n_heads = 32,
        .n_kv_heads = 8,
        .head_dim = 128,
        .ffn = 14336,
        .vocab = 128256,
        .tied_embeddings = false}}};
  return all;
}

model::RandomCheckpoint find_shape(const Options& options) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) {
    names.emplace_back(preset.name);
    if (preset.name != options.shape) continue;
    model::RandomCheckpoint shape = preset.shape;
    shape.n_layers = options.n_layers;
    return shape;
  }
  fail(ExitCode::kUsage, "bench: --shape: expected " + join_or(names) + ", found '" + options.shape + "'");
}

void check(const Options& options) {
  if (options.model.empty() == options.shape.empty()) fail(ExitCode::kUsage, "bench: give one of --model and --shape");
  const auto at_least = [](const char* flag, int64_t value, int64_t least) {
    if (value < least) {
      fail(ExitCode::kUsage, std::string("bench: ") + flag + ": expected at least " + std::to_string(least) +
                                 ", found " + std::to_string(value));
    }
  };
  at_least("--layers", options.n_layers, 1);
  at_least("--answer-tokens", options.answer_tokens, 1);
  at_least("--tokens", options.n_tokens, options.answer_tokens + 1);
  at_least("--window", options.window, 1);
  at_least("--sinks", options.sinks, 0);
  at_least("--threads", options.n_threads, 0);
  at_least("--repetitions", options.n_repetitions, 1);
}

struct Report {
  std::string device;
  OperationTime product, copy;  // ceilings
  std::vector<OperationTime> operations;
  SweepTimes sweep;
};

// Work per second, in units of 1e9, of the kind that the operation is bound by.
double rate(const OperationTime& time) { return (time.flop > 0 ? time.flop : time.bytes) / time.seconds / 1e9; }

const OperationTime& ceiling(const Report& report, const OperationTime& time) {
  return time.flop > 0 ? report.product : report.copy;
}

TerminalTable new_table() {
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  return TerminalTable({{.width = 18}, {kRight, 11}, {kRight, 11}, {kRight, 9}, {kRight, 12}}, 1);
}

void print(const Report& report) {
  const auto cells = [](const OperationTime& time) -> std::vector<std::string> {
    const std::string rate_text = number(rate(time), "{:.1f}");
    const bool computes = time.flop > 0;
    return {time.name, number(time.seconds * 1e3, "{:.3f}"), computes ? rate_text : "", computes ? "" : rate_text};
  };
  TerminalTable operations = new_table();
  operations.add({"operation", "ms", "GFLOP/s", "GB/s", "of ceiling"});
  for (const OperationTime& time : report.operations) {
    std::vector<std::string> row = cells(time);
    row.push_back(number(100.0 * rate(time) / rate(ceiling(report, time)), "{:.0f}%"));
    operations.add(std::move(row));
  }
  TerminalTable ceilings = new_table();
  ceilings.add(cells(report.product));
  ceilings.add(cells(report.copy));
  std::printf("Device: %s\n\n%s\nCeilings of this machine\n%s", report.device.c_str(), operations.text().c_str(),
              ceilings.text().c_str());
  const SweepTimes& sweep = report.sweep;
  std::printf("\nSweep of one example: %.3f s; %lld separate passes: %.3f s; ratio %.2f; results ", sweep.sweep_seconds,
              static_cast<long long>(sweep.n_passes), sweep.separate_seconds,
              sweep.separate_seconds / sweep.sweep_seconds);
  if (sweep.largest_difference == 0.0) {
    std::printf("equal bit for bit\n");
  } else {
    std::printf("differ by up to %.1e nats\n", sweep.largest_difference);
  }
}

nlohmann::ordered_json to_json(const Report& report, const Options& options) {
  const auto entry = [&](const OperationTime& time) {
    nlohmann::ordered_json json = {{"name", time.name}, {"seconds", time.seconds}};
    json[time.flop > 0 ? "gflop_per_second" : "gbyte_per_second"] = rate(time);
    json["share_of_ceiling"] = rate(time) / rate(ceiling(report, time));
    return json;
  };
  nlohmann::ordered_json json = {
      {"version", kVersion},        {"git_revision", kGitRevision},           {"device", report.device},
      {"tokens", options.n_tokens}, {"answer_tokens", options.answer_tokens}, {"window_keys", options.window},
      {"sinks", options.sinks}};
  for (const OperationTime& time : report.operations) json["operations"].push_back(entry(time));
  json["ceilings"] = {entry(report.product), entry(report.copy)};
  json["sweep"] = {{"seconds", report.sweep.sweep_seconds},
                   {"passes", report.sweep.n_passes},
                   {"passes_seconds", report.sweep.separate_seconds},
                   {"ratio", report.sweep.separate_seconds / report.sweep.sweep_seconds},
                   {"equal", report.sweep.largest_difference == 0.0},
                   {"largest_difference_nats", report.sweep.largest_difference}};
  return json;
}

int run_bench(const Options& options) {
  check(options);
  const int n_threads =
      options.n_threads > 0 ? options.n_threads : std::max(1, static_cast<int>(affinity_cores().size()));
  const bool is_gpu = options.device == "cuda" || (options.device == "auto" && cuda::cuda_device_count() > 0);
  const auto ops = is_gpu ? cuda::make_cuda_backend({.attention = run::parse_attention(options.attention)})
                          : cpu::make_cpu_backend({.n_threads = n_threads});
  std::optional<TemporaryDirectory> directory;
  std::filesystem::path model = options.model;
  if (options.model.empty()) {
    const model::RandomCheckpoint shape = find_shape(options);
    model = directory.emplace().path();
    std::fprintf(stderr, "winnow: writing random weights of shape %s, %lld layers\n", options.shape.c_str(),
                 static_cast<long long>(shape.n_layers));
    model::write_random_checkpoint(model, shape);
  }
  const model::ModelConfig config = model::read_config(model);
  const model::Checkpoint checkpoint(model, config.quantization, config.family);
  model::ModelWeights weights(config, checkpoint, *ops);
  const BenchmarkSize size = {.n_tokens = options.n_tokens,
                              .answer_tokens = options.answer_tokens,
                              .window = {.keys = options.window, .sinks = options.sinks},
                              .n_repetitions = options.n_repetitions};
  Report report;
  report.device = ops->device().description();
  if (is_gpu) {
    const engine::Ceilings ceilings = engine::measure_ceilings(*ops);
    report.product = {"large product", 1.0, ceilings.flop_per_second, 0.0};
    report.copy = {"memory copy", 1.0, 0.0, ceilings.bytes_per_second};
  } else {
    report.product = time_large_sgemm(n_threads, options.n_repetitions);
    report.copy = time_memory_copy(n_threads, options.n_repetitions);
  }
  report.operations = time_operations(*ops, config, weights, size);
  report.sweep = time_sweep(*ops, config, weights, size);
  if (options.json) {
    std::printf("%s\n", json_text(to_json(report, options), 2).c_str());
  } else {
    print(report);
  }
  // On a GPU the two may differ by rounding: the shapes of their attention calls do.
  if (!is_gpu && report.sweep.largest_difference != 0.0) {
    fail(ExitCode::kInternal, "bench: the sweep and the separate passes differ");
  }
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

Command add_bench(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb =
      program.add_subcommand("bench", "Times every operation and the sweep, beside what this machine can do at all");
  verb.add_option("--model", options->model, "Checkpoint directory (this or --shape)").type_name("DIR");
  verb.add_option("--shape", options->shape, "Random weights of this shape: demo, qwen3-0.6b, qwen3-4b or llama3-8b")
      .type_name("NAME");
  const auto number = [&](const char* flag, auto& value, const char* description) {
    verb.add_option(flag, value, description).show_default().type_name("N");
  };
  number("--layers", options->n_layers, "Layers of a --shape model");
  number("--tokens", options->n_tokens, "Length of the example, in tokens");
  number("--answer-tokens", options->answer_tokens, "Tokens that are scored, at its end");
  number("--window", options->window, "Keys that a windowed row sees, itself included, in tokens");
  number("--sinks", options->sinks, "First tokens that every row sees besides, in tokens");
  verb.add_option("--device", options->device, "auto, cpu or cuda")
      .show_default()
      .type_name("NAME")
      .one_of({"auto", "cpu", "cuda"});
  verb.add_option("--attention", options->attention, "Attention on a GPU: auto, hopper, cudnn or own")
      .show_default()
      .type_name("NAME")
      .one_of({"auto", "cudnn", "own", "hopper"});
  number("--threads", options->n_threads, "Threads; 0: the cores that this process may use");
  number("--repetitions", options->n_repetitions, "Times that an operation is run; the fastest counts");
  verb.add_flag("--json", options->json, "Print JSON instead of a table (default: table)");
  verb.footer(
      "\nThe ceilings are a large product (of OpenBLAS on a CPU) and a large copy, measured in the same run; what "
      "stays in the\n"
      "caches can pass the copy's. The sweep and the layers + 1 separate passes that it replaces are run once each.\n"
      "\nExample:\n  winnow bench --shape qwen3-0.6b --layers 4 --tokens 1024\n");
  return {verb, [options] { return run_bench(*options); }};
}

}  // namespace winnow::commands
