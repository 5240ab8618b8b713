// winnow select: from a result to the layers that keep full attention, by any rule, without a model.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/own_files.h"
#include "base/strings.h"
#include "jobs/cli/commands/commands.h"
#include "results/calibration/store.h"
#include "results/selection/heads.h"
#include "results/selection/methods.h"
#include "results/selection/select_input.h"

namespace winnow::commands {
namespace {

struct Options {
  std::string results;
  std::string out;
  bool json = false;
  bool per_kv_head = false;
  selection::SelectOptions select;
};

std::string list_of(const std::vector<int64_t>& layers) {
  if (layers.empty()) return "no layer";
  return (layers.size() == 1 ? "layer " : "layers ") + joined(layers);
}

std::string to_table(const selection::Choice& choice, const selection::Selection& selection) {
  std::string text;
  if (!choice.order.empty()) text += "rank  layer  kept  " + choice.score_name + "\n";
  for (std::size_t i = 0; i < choice.order.size(); ++i) {
    const selection::ScoredLayer& scored = choice.order[i];
    const bool is_kept = std::find(choice.layers.begin(), choice.layers.end(), scored.layer) != choice.layers.end();
    char line[96];
    std::snprintf(line, sizeof line, "%4zu  %5lld  %s  %12.4g\n", i + 1, static_cast<long long>(scored.layer),
                  is_kept ? "full" : "    ", scored.score);
    text += line;
  }
  text += (choice.order.empty() ? "" : "\n") + std::string("Keep full attention in ") + list_of(choice.layers) + " (" +
          std::to_string(selection.keep) + " of " + std::to_string(selection.n_layers) + "); window the rest.\n" +
          "Method " + selection.method + ", window " + std::to_string(selection.window) + ", sinks " +
          std::to_string(selection.sinks) + ", decode " + selection.decode +
          (selection.target.empty() ? "" : ", target " + selection.target) + ".\n";
  return text;
}

int run_select_heads(const Options& options, const std::filesystem::path& path) {
  if (options.select.method != "nll") {
    fail(ExitCode::kUsage, "--method " + options.select.method + " ranks layers; --per-kv-head ranks heads by nll");
  }
  const selection::SelectInput input = selection::read_select_input(path, options.select.method);
  const selection::HeadChoice choice = selection::choose_heads(input, options.select.keep);
  const selection::Selection selection = selection::make_head_selection(choice, input, path.string());
  if (!options.out.empty()) selection::write_selection(options.out, selection);
  const std::string text = printable(options.json ? selection::to_json(selection) : to_table(choice, selection));
  std::fwrite(text.data(), 1, text.size(), stdout);
  const std::string caveats = selection.provenance.text("warnings");
  if (!caveats.empty()) std::fprintf(stderr, "winnow: note: %s\n", one_line(caveats).c_str());
  return static_cast<int>(ExitCode::kDone);
}

int run_select(const Options& options) {
  const std::filesystem::path path = calibration::results_file(options.results);
  if (!options.out.empty()) {
    check_outputs({selection::selection_output("--out", options.out)},
                  {.files = {path, path.parent_path() / "run.json"}, .checkpoints = {}});
  }
  if (options.per_kv_head) return run_select_heads(options, path);
  const selection::SelectInput input = selection::read_select_input(path, options.select.method);
  const selection::Choice choice = selection::choose_layers(input, options.select);
  const selection::Selection selection = selection::make_selection(choice, input, path.string());
  if (!options.out.empty()) selection::write_selection(options.out, selection);
  const std::string text = printable(options.json ? selection::to_json(selection) : to_table(choice, selection));
  std::fwrite(text.data(), 1, text.size(), stdout);
  const std::string caveats = selection.provenance.text("warnings");
  if (!caveats.empty()) std::fprintf(stderr, "winnow: note: %s\n", one_line(caveats).c_str());
  const std::string padding = selection::hybrid_padding_note(selection.keep, selection.n_layers);
  if (!padding.empty()) std::fprintf(stderr, "winnow: note: %s\n", padding.c_str());
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

Command add_select(const cli::Verb& program) {
  const auto options = std::make_shared<Options>();
  const cli::Verb verb =
      program.add_subcommand("select", "Chooses the layers that keep full attention, by any rule, without a model");
  verb.add_option("results", options->results, "Run directory, or its results.h5").required().type_name("RUN_DIR");
  verb.add_option("--method", options->select.method, "Rule; see below (default: nll)").type_name("METHOD");
  verb.add_option("--keep", options->select.keep,
                  "Layers that keep full attention, 0 to all (default: the --top-k of the results)")
      .type_name("K");
  verb.add_flag(
      "--per-kv-head", options->per_kv_head,
      "Choose key heads instead, by nll: --keep layers' worth of them, beside layers of that memory (default: "
      "off)");
  verb.add_option("--control", options->select.control, "Control set of method ratio (default: the only one)")
      .type_name("NAME");
  verb.add_option("--lazy", options->select.lazy,
                  "Ratio of method light-transfer: compat as SWAA's script computes it, or clean (default: compat)")
      .type_name("KIND");
  verb.add_option("--lazy-share", options->select.lazy_share,
                  "Share of the layers that each example votes lazy in method light-transfer (default: 0.5)")
      .type_name("SHARE");
  verb.add_option("--out", options->out, "Write the selection here, as JSON (default: only print)").type_name("FILE");
  verb.add_flag("--json", options->json, "Print the selection itself on stdout instead of a table (default: table)");
  verb.footer(
      std::string("\nMethods that rank the measured layers: nll (the paper's), exact-match, token-accuracy, ") +
      selection::signal_methods() +
      ",\nratio (long / short damage), nll-minus-generic, light-transfer. Found by winnow search: greedy-forward,\n"
      "greedy-backward. Without a look at the figures: periodic:K[@O] (layers i with i mod K = O), first, last,\n"
      "random[:SEED], list:1,4,5. results/README.md defines each.\n"
      "\nExample:\n  winnow select run --method exact-match --keep 9 --out selection.json\n");
  return {verb, [options] { return run_select(*options); }};
}

}  // namespace winnow::commands
