// winnow stats: computes the statistics of a results file anew, without a model.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/node.h"
#include "base/own_files.h"
#include "jobs/cli/commands/commands.h"
#include "jobs/cli/present.h"
#include "results/calibration/agreement.h"
#include "results/calibration/store.h"
#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"
#include "results/evaluation/table.h"
#include "results/search/results.h"
#include "results/search/store.h"
#include "results/search/table.h"
#include "results/storage/own_hdf5.h"

namespace winnow::commands {
namespace {

struct Options {
  std::string file;
  std::string other;
  std::string out;
  bool in_place = false;
  bool json = false;
  // Absent: what the file was made with.
  std::optional<int64_t> seed;
  std::optional<int64_t> top_k;
  std::optional<int64_t> n_resamples;
  std::optional<std::string> baseline;
  std::optional<std::string> margin;
};

int print(const std::string& found) {
  const std::string text = printable(found);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return static_cast<int>(ExitCode::kDone);
}

// In place the file is its own output: it may be no link, but it is a result, as the reader sees.
void check_output(const Options& options) {
  if (options.in_place) check_outputs({storage::results_output("--in-place", options.file)}, {});
  if (options.out.empty()) return;
  const std::filesystem::path file = options.file;
  check_outputs({storage::results_output("--out", options.out)},
                {.files = {file, file.parent_path() / "run.json"}, .checkpoints = {}});
}

// Sets what the statistics of both kinds of results take.
template <typename Settings>
void take_shared(const Options& options, Settings& settings) {
  if (options.seed) settings.seed = static_cast<uint64_t>(*options.seed);
  settings.n_resamples = options.n_resamples.value_or(settings.n_resamples);
}

// Writes the results where --in-place or --out asks for it.
template <typename Results>
void write_if_asked(const Options& options, Results& results,
                    void (*write)(const std::filesystem::path&, const Results&)) {
  if (!options.in_place && options.out.empty()) return;
  results.provenance.set("statistics_command", command_line(), "command line that computed the statistics anew");
  write(options.in_place ? options.file : options.out, results);
}

int run_evaluation(const Options& options) {
  if (options.top_k) {
    fail(ExitCode::kUsage, "stats: --top-k is about a calibration, but " + options.file + " is an evaluation");
  }
  evaluation::EvaluationResults results = evaluation::read_evaluation(options.file);
  check_output(options);
  evaluation::EvaluationOptions settings = results.statistics.options;
  take_shared(options, settings);
  settings.baseline = options.baseline.value_or(settings.baseline);
  if (options.margin) settings.margin = evaluation::parse_margin(*options.margin);
  results.statistics = evaluation::compute_evaluation(results.table, settings);
  write_if_asked(options, results, evaluation::write_evaluation);
  return print(options.json ? to_json(results) : to_table(results));
}

// Refuses what only evaluations take.
void refuse_of_evaluation(const Options& options, const std::string& why) {
  for (const auto& [flag, is_given] :
       {std::pair("--baseline", options.baseline.has_value()), {"--margin", options.margin.has_value()}}) {
    if (is_given) fail(ExitCode::kUsage, "stats: " + std::string(flag) + " is about an evaluation; " + why);
  }
}

// Two calibrations: whether they rank the layers alike.
int run_comparison(const Options& options) {
  if (options.in_place || !options.out.empty()) {
    fail(ExitCode::kUsage, "stats: --in-place and --out are about one result; two are only compared");
  }
  refuse_of_evaluation(options, "two calibrations have none");
  const std::string other = calibration::results_file(options.other).string();
  const calibration::Results a = calibration::read_results(options.file);
  const calibration::Results b = calibration::read_results(other);
  calibration::StatisticsOptions settings = a.statistics.options;
  take_shared(options, settings);
  settings.top_k = options.top_k.value_or(settings.top_k);
  const calibration::Agreement agreement = calibration::compare_results(a, options.file, b, other, settings);
  return print(options.json ? to_json(agreement) : to_line(agreement));
}

int run_stats(Options options) {
  options.file = calibration::results_file(options.file).string();
  if (options.in_place && !options.out.empty()) {
    fail(ExitCode::kUsage, "stats: --in-place and --out exclude each other; give one of them");
  }
  if (options.seed.value_or(0) < 0) {
    fail(ExitCode::kUsage, "stats: --seed: expected at least 0, found " + std::to_string(*options.seed));
  }
  if (!options.other.empty()) return run_comparison(options);
  if (evaluation::is_evaluation(options.file)) return run_evaluation(options);
  if (search::is_search(options.file)) {
    fail(ExitCode::kUsage, "stats: " + options.file +
                               " is of a search, whose figures follow from its run directory; repeat winnow search, "
                               "with another --seed");
  }
  refuse_of_evaluation(options, options.file + " is a calibration");
  calibration::Results results = calibration::read_results(options.file);
  check_output(options);
  calibration::StatisticsOptions settings = results.statistics.options;
  take_shared(options, settings);
  settings.top_k = options.top_k.value_or(settings.top_k);
  results.statistics = calibration::compute_statistics(results.calibration, results.controls, settings);
  write_if_asked(options, results, calibration::write_results);
  return print(cli::present_results(results, options.json));
}

}  // namespace

Command add_stats(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb =
      program.add_subcommand("stats", "Computes the statistics of a results file anew, without a model");
  verb.add_option("file", options->file, "Run directory, or its results.h5").required().type_name("RUN_DIR");
  verb.add_option("other", options->other,
                  "Another calibration of the same layers and window, of the same model with other weights, say: print "
                  "how far both rank the layers alike")
      .type_name("RUN_DIR");
  verb.add_option("--seed", options->seed, "Seed of bootstrap and permutations (default: the file's)").type_name("N");
  verb.add_option("--top-k", options->top_k,
                  "Layers that are to keep full attention; 0: a quarter of those measured (default: the file's)")
      .type_name("K");
  verb.add_option("--resamples", options->n_resamples, "Bootstrap resamples of the examples (default: the file's)")
      .type_name("N");
  verb.add_option("--baseline", options->baseline,
                  "Of an evaluation: pattern that all are compared with besides full (default: the file's)")
      .type_name("NAME");
  verb.add_option(
          "--margin", options->margin,
          "Of an evaluation: largest loss against full attention that is accepted, 1% of token accuracy or 0.01 "
          "nats per token, or the word default: 5 % of what the pattern with the fewest full layers loses (default: "
          "the file's)")
      .type_name("LOSS");
  verb.add_option("--out", options->out, "Write the whole result with the new statistics here (default: only print)")
      .type_name("FILE");
  verb.add_flag("--in-place", options->in_place,
                "Put the new statistics into the file itself, in one atomic step "
                "(default: only print)");
  verb.add_flag("--json", options->json, "Print JSON on stdout instead of a table (default: table)");
  verb.footer(
      "\nFigures are in nats per token; layers are counted from 0. The same seed gives the same figures.\n"
      "\nExample:\n  winnow stats run --top-k 9 --seed 1\n"
      "  winnow stats run-bf16 run-fp8          # do quantised weights change the ranking?\n");
  return {verb, [options] { return run_stats(*options); }};
}

}  // namespace winnow::commands
