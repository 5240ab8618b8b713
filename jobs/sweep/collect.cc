#include "jobs/sweep/collect.h"

#include <cmath>
#include <exception>
#include <optional>

#include "base/error.h"
#include "jobs/sweep/cell_state.h"
#include "results/calibration/store.h"
#include "results/campaign/collection.h"
#include "winnow_version.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

constexpr const char* kStateUnusable = "unusable";

// A window's keys do not depend on the model, so none is opened: the settings of a model of one layer.
int64_t window_keys_of(const SweepCell& cell) {
  run::CalibrateOptions options = cell.options;
  options.layers = "0";
  options.base = "full";
  return run::resolve_settings(options, 1).window_keys;
}

// Folder of the results below OUT/runs: one for each cell and seed.
std::string label_of(const Cell& cell, uint64_t seed) {
  return seed == 0 ? cell.name : cell.name + "/seeds/" + std::to_string(seed);
}

// Why a results file is not that of the row; empty where it is. Such a file was put there or changed by hand.
std::string misfit(const campaign::CollectedCell& row) {
  const campaign::CellSummary& summary = *row.summary;
  const auto differs = [](const std::string& what, const std::string& found, const std::string& expected) {
    return "has " + what + " " + found + ", but the sweep asks for " + expected;
  };
  const auto number_of = [&](const char* name) -> std::optional<int64_t> {
    const storage::ProvenanceEntry* entry = summary.provenance.find(name);
    if (entry == nullptr || !std::holds_alternative<int64_t>(entry->value)) return std::nullopt;
    return std::get<int64_t>(entry->value);
  };
  if (summary.statistics.options.seed != static_cast<uint64_t>(row.seed)) {
    return differs("seed", std::to_string(summary.statistics.options.seed), std::to_string(row.seed));
  }
  const int64_t window_keys = number_of("window_keys").value_or(row.window_keys);
  if (window_keys != row.window_keys) {
    return differs("window_keys", std::to_string(window_keys), std::to_string(row.window_keys));
  }
  const int64_t sinks = number_of("sinks").value_or(row.sinks);
  if (sinks != row.sinks) return differs("sinks", std::to_string(sinks), std::to_string(row.sinks));
  const std::string decode = summary.provenance.text("decode");
  return decode.empty() || decode == row.decode ? "" : differs("decode", decode, row.decode);
}

// Reads the results of the row; an empty row.summary and a reason where they cannot be used.
void read_row(const fs::path& path, campaign::CollectedCell& row) {
  std::string reason;
  try {
    row.summary = campaign::summarize(calibration::read_results(path));
    reason = misfit(row);
    if (!reason.empty()) reason = path.string() + ": " + reason;
  } catch (const std::exception& error) {  // one cell of many: whatever it is, the others are collected
    reason = error.what();
  }
  if (reason.empty()) return;
  row.summary.reset();
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
  row.window_keys = window_keys_of(sweep_cell);
  row.sinks = cell.sinks;
  row.decode = cell.decode;
  row.target = cell.target;
  row.seed = static_cast<int64_t>(seed);
  row.run_directory = cell.run_directory.string();
  const fs::path path = cell.results(seed);
  std::error_code ignored;
  if (fs::exists(path, ignored)) {
    read_row(path, row);
  } else {
    row.state = status.state == CellState::kDone ? kStateUnusable : state_name(status.state);
    row.reason = one_line(reason_of(status));
  }
  return row;
}

campaign::Collection collect_results(const Sweep& sweep, const std::vector<CellStatus>& states) {
  campaign::Collection collection{.sweep = sweep.file.name, .version = kVersion, .cells = {}};
  for (std::size_t i = 0; i < sweep.cells.size(); ++i) {
    for (const uint64_t seed : sweep.cells[i].cell.seeds) {
      collection.cells.push_back(row_of(sweep.cells[i], seed, states[i]));
    }
  }
  return collection;
}

}  // namespace

std::string collect(const Sweep& sweep, const std::vector<CellStatus>& states, const fs::path& file, bool as_json) {
  const campaign::Collection collection = collect_results(sweep, states);
  const campaign::RankAgreement agreement = campaign::rank_agreement(collection.cells);
  campaign::write_collection(file, collection, agreement);
  if (as_json) return campaign::to_json(collection, agreement, file.string());
  return campaign::to_table(collection, agreement) + "\nWritten: " + one_line(file.string()) + "\n";
}

}  // namespace winnow::sweep
