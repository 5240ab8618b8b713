#include "jobs/sweep/collect.h"

#include <cmath>
#include <exception>
#include <map>
#include <optional>

#include "base/error.h"
#include "jobs/sweep/cell_state.h"
#include "results/calibration/store.h"
#include "results/campaign/collection.h"
#include "results/campaign/store.h"
#include "results/campaign/study.h"
#include "results/campaign/table.h"
#include "results/evaluation/evaluation.h"
#include "results/evaluation/store.h"
#include "results/evaluation/table.h"
#include "results/search/results.h"
#include "results/search/store.h"
#include "results/search/table.h"
#include "winnow_version.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

constexpr const char* kStateUnusable = "unusable";

// Folder of the results below OUT/runs: one for each cell and seed.
std::string label_of(const Cell& cell, uint64_t seed) {
  return seed == 0 ? cell.name : cell.name + "/seeds/" + std::to_string(seed);
}

// What a results file was computed with.
struct FoundSettings {
  const storage::Provenance& provenance;
  std::optional<uint64_t> seed;
  std::optional<int64_t> top_k;
  std::optional<std::string> baseline;
  std::optional<std::string> margin;  // as --margin takes it
};

// Why a results file is not that of the row; empty where it is. Such a file was put there or changed by hand, or the
// sweep asks for other statistics since.
std::string misfit(const campaign::CollectedCell& row, const run::RunOptions& options, const FoundSettings& found) {
  const auto differs = [](const std::string& what, const std::string& there, const std::string& expected) {
    return "has " + what + " " + there + ", but the sweep asks for " + expected;
  };
  const auto number_of = [&](const char* name) -> std::optional<int64_t> {
    const storage::ProvenanceEntry* entry = found.provenance.find(name);
    if (entry == nullptr || !std::holds_alternative<int64_t>(entry->value)) return std::nullopt;
    return std::get<int64_t>(entry->value);
  };
  if (found.seed && *found.seed != static_cast<uint64_t>(row.seed)) {
    return differs("seed", std::to_string(*found.seed), std::to_string(row.seed));
  }
  const int64_t window_keys = number_of("window_keys").value_or(row.window_keys);
  if (window_keys != row.window_keys) {
    return differs("window_keys", std::to_string(window_keys), std::to_string(row.window_keys));
  }
  const int64_t sinks = number_of("sinks").value_or(row.sinks);
  if (sinks != row.sinks) return differs("sinks", std::to_string(sinks), std::to_string(row.sinks));
  const std::string decode = found.provenance.text("decode");
  if (!decode.empty() && decode != row.decode) return differs("decode", decode, row.decode);
  if (found.top_k && options.top_k && *found.top_k != *options.top_k) {
    return differs("top_k", std::to_string(*found.top_k), std::to_string(*options.top_k));
  }
  const auto shown = [](const std::string& name) { return name.empty() ? std::string("none") : name; };
  if (found.baseline && *found.baseline != options.baseline) {
    return differs("baseline", shown(*found.baseline), shown(options.baseline));
  }
  const auto given = evaluation::parse_margin(options.margin);
  if (found.margin && evaluation::parse_margin(*found.margin) != given) {
    return differs("margin", shown(*found.margin), shown(options.margin));
  }
  return "";
}

// Reads what the row's verb writes into the row. Returns why it is not that of the row.
std::string read_calibration(const fs::path& path, const run::RunOptions& options, campaign::CollectedCell& row) {
  row.summary = campaign::summarize(calibration::read_results(path));
  const calibration::StatisticsOptions& statistics = row.summary->statistics.options;
  return misfit(row, options,
                {.provenance = row.summary->provenance,
                 .seed = statistics.seed,
                 .top_k = statistics.top_k,
                 .baseline = {},
                 .margin = {}});
}

std::string read_evaluation(const fs::path& path, const run::RunOptions& options, campaign::CollectedCell& row) {
  const evaluation::EvaluationResults results = evaluation::read_evaluation(path);
  const evaluation::EvaluationStatistics& statistics = results.statistics;
  const std::optional<evaluation::Margin>& margin = statistics.options.margin;
  row.leading_figure = statistics.losses ? statistics.losses->lead().figure : "nll";
  for (std::size_t p = 0; p < results.table.pattern.size(); ++p) {
    campaign::CollectedPattern pattern{
        .name = results.table.pattern[p],
        .nll = statistics.nll.mean[p],
        .exact_match = statistics.exact_match.mean[p],
        .token_accuracy = statistics.token_accuracy.mean[p],
        .leading_loss = statistics.losses ? statistics.losses->lead().mean[p] : statistics.full.nll.mean[p]};
    for (int64_t l = 0; l < results.model.n_layers; ++l) {
      pattern.full_layers += results.table.full_attention(static_cast<int64_t>(p), l);
    }
    row.patterns.push_back(std::move(pattern));
  }
  return misfit(row, options,
                {.provenance = results.provenance,
                 .seed = statistics.options.seed,
                 .top_k = {},
                 .baseline = statistics.options.baseline,
                 .margin = margin ? evaluation::margin_text(*margin) : ""});
}

std::string read_search(const fs::path& path, const run::RunOptions& options, campaign::CollectedCell& row) {
  storage::Provenance provenance;
  for (const search::FoundPatterns& found : search::read_found(path, provenance)) {
    for (std::size_t k = 0; k < found.full_layers.size(); ++k) {
      const auto n_full = static_cast<int64_t>(found.full_layers[k].size());
      row.patterns.push_back({.name = found.method + ":" + std::to_string(n_full),
                              .full_layers = n_full,
                              .nll = found.best[k].nll_nats,
                              .exact_match = found.best[k].exact_match,
                              .token_accuracy = found.best[k].token_accuracy});
    }
  }
  return misfit(row, options, {.provenance = provenance, .seed = {}, .top_k = {}, .baseline = {}, .margin = {}});
}

// Reads the results of the row; nothing of them and a reason where they cannot be used.
void read_row(const fs::path& path, const run::RunOptions& options, campaign::CollectedCell& row) {
  std::string reason;
  try {
    reason = row.verb == "evaluate" ? read_evaluation(path, options, row)
             : row.verb == "search" ? read_search(path, options, row)
                                    : read_calibration(path, options, row);
    if (!reason.empty()) reason = path.string() + ": " + reason;
  } catch (const std::exception& error) {  // one cell of many: whatever it is, the others are collected
    reason = error.what();
  }
  if (reason.empty()) return;
  row.summary.reset();
  row.patterns.clear();
  row.state = kStateUnusable;
  row.reason = one_line(reason) + "; remove it and submit again, which makes it anew";
}

// One line on a cell that has no results yet.
std::string reason_of(const CellStatus& status) {
  switch (status.state) {
    case CellState::kWaiting:
      return "was never started";
    case CellState::kQueued:
      return "is in the queue" + (status.job.empty() ? "" : " as job " + status.job);
    case CellState::kRunning:
      return std::to_string(static_cast<int>(std::floor(100.0 * status.progress))) + " % are measured";
    case CellState::kDone:
      return "its results file is gone";
    case CellState::kInterrupted:
    case CellState::kFailed:
      break;
  }
  std::string reason = status.last_error.empty() ? "no error was recorded" : status.last_error;
  if (!status.log.empty()) reason += " (log: " + status.log.string() + ")";
  return reason;
}

campaign::CollectedCell row_of(const SweepCell& sweep_cell, uint64_t seed, const CellStatus& status) {
  const Cell& cell = sweep_cell.cell;
  campaign::CollectedCell row;
  row.label = label_of(cell, seed);
  row.name = cell.name;
  row.model = cell.model;
  row.dataset = cell.dataset;
  row.window = cell.window;
  row.window_keys = run::resolve_window(sweep_cell.options).window_keys;
  row.sinks = cell.sinks;
  row.decode = cell.decode;
  row.target = cell.target;
  row.seed = static_cast<int64_t>(seed);
  row.run_directory = cell.run_directory.string();
  row.verb = cell.verb();
  const fs::path path = cell.results(seed);
  std::error_code ignored;
  if (fs::exists(path, ignored)) {
    read_row(path, sweep_cell.options, row);
  } else {
    row.state = status.state == CellState::kDone ? kStateUnusable : state_name(status.state);
    row.reason = one_line(reason_of(status));
  }
  return row;
}

// `files`: the results of each row, by its label.
campaign::Collection collect_results(const Sweep& sweep, const std::vector<CellStatus>& states,
                                     std::map<std::string, fs::path>& files) {
  campaign::Collection collection{.sweep = sweep.file.name, .version = kVersion, .cells = {}, .others = {}};
  for (std::size_t i = 0; i < sweep.cells.size(); ++i) {
    const Cell& cell = sweep.cells[i].cell;
    std::vector<campaign::CollectedCell>& rows = cell.is_calibration() ? collection.cells : collection.others;
    for (const uint64_t seed : cell.seeds) {
      rows.push_back(row_of(sweep.cells[i], seed, states[i]));
      files[rows.back().label] = cell.results(seed);
    }
  }
  return collection;
}

}  // namespace

std::string collect(const Sweep& sweep, const std::vector<CellStatus>& states, const fs::path& file, bool as_json) {
  std::map<std::string, fs::path> files;
  const campaign::Collection collection = collect_results(sweep, states, files);
  const campaign::RankAgreement agreement = campaign::rank_agreement(collection.cells);
  const campaign::Study study = campaign::make_study(
      collection, [&](const campaign::CollectedCell& row) { return calibration::read_results(files.at(row.label)); });
  campaign::write_collection(file, collection, agreement, study);
  if (as_json) return campaign::to_json(collection, agreement, file.string(), study);
  return campaign::to_table(collection, agreement, study) + "\nWritten: " + one_line(file.string()) + "\n";
}

}  // namespace winnow::sweep
