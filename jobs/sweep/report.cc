#include "jobs/sweep/report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "base/terminal_table.h"
#include "jobs/sweep/cell_state.h"
#include "jobs/sweep/files.h"

namespace winnow::sweep {
namespace fs = std::filesystem;
namespace {

using Row = std::vector<std::string>;

constexpr std::size_t kGap = 2;  // blanks between columns

// Whether all cells are calibrations, as most sweeps': no column for the verb then.
bool has_one_verb(const SweepView& view) {
  return std::all_of(view.sweep.cells.begin(), view.sweep.cells.end(),
                     [](const SweepCell& cell) { return cell.cell.is_calibration(); });
}

Row coordinates(const SweepView& view, const Cell& cell) {
  Row row = {cell.model, cell.dataset, std::to_string(cell.window), std::to_string(cell.sinks),
             cell.target.empty() ? cell.decode : cell.target};
  if (!has_one_verb(view)) row.insert(row.begin(), cell.verb());
  return row;
}

Row header(const SweepView& view, const Row& more) {
  Row row = {"model", "dataset", "window", "sinks", "answers"};
  if (!has_one_verb(view)) row.insert(row.begin(), "verb");
  row.insert(row.end(), more.begin(), more.end());
  return row;
}

std::map<CellState, int> count(const SweepView& view) {
  std::map<CellState, int> counts;
  for (const CellStatus& status : view.states) ++counts[status.state];
  return counts;
}

// "3 done, 1 failed".
std::string counted(const SweepView& view) {
  std::string text;
  for (const auto& [state, n] : count(view))
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", n, state_name(state));
  return fmt::format("{} cells: {}\n", view.states.size(), text);
}

nlohmann::json cell_view(const Cell& cell, const CellStatus& status) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::json() : nlohmann::json(text);
  };
  nlohmann::json json = {{"name", cell.name},
                         {"run_directory", cell.run_directory.string()},
                         {"model", cell.model},
                         {"dataset", cell.dataset},
                         {"window", cell.window},
                         {"sinks", cell.sinks},
                         {"decode", cell.decode},
                         {"target", text_or_null(cell.target)},
                         {"seeds", cell.seeds},
                         {"state", state_name(status.state)},
                         {"progress", status.progress},
                         {"eta_seconds", status.eta_seconds ? nlohmann::json(*status.eta_seconds) : nlohmann::json()},
                         {"attempts", status.attempts},
                         {"exit_code", status.exit_code ? nlohmann::json(*status.exit_code) : nlohmann::json()},
                         {"last_error", text_or_null(status.last_error)},
                         {"log", text_or_null(status.log.string())},
                         {"job", text_or_null(status.job)}};
  if (!cell.is_calibration()) json["verb"] = cell.verb();
  return json;
}

nlohmann::json head(const SweepView& view) {
  nlohmann::json json = {{"name", view.sweep.file.name},
                         {"output", view.sweep.file.output.string()},
                         {"note", view.note.empty() ? nlohmann::json() : nlohmann::json(view.note)},
                         {"counts", nlohmann::json::object()},
                         {"cells", nlohmann::json::array()}};
  for (const CellState state : {CellState::kWaiting, CellState::kQueued, CellState::kRunning, CellState::kInterrupted,
                                CellState::kDone, CellState::kFailed}) {
    json["counts"][state_name(state)] = std::count_if(view.states.begin(), view.states.end(),
                                                      [&](const CellStatus& status) { return status.state == state; });
  }
  return json;
}

std::string hours_text(double hours) {
  return hours < 0.01 ? "<0.01" : fmt::format("{:.{}f}", hours, hours < 10 ? 2 : 1);
}

struct Totals {
  double gpu_hours = 0.0;  // of what is missing
  double cpu_hours = 0.0;
  int unknown = 0;
};

Totals totals(const SweepView& view, const std::vector<Price>& prices) {
  Totals sum;
  for (std::size_t i = 0; i < prices.size(); ++i) {
    if (view.states[i].state == CellState::kDone) continue;
    if (!prices[i].unknown.empty()) ++sum.unknown;
    const double left = prices[i].rank_hours * (1.0 - view.states[i].progress);
    (view.sweep.cells[i].cell.resources.gpus_per_node > 0 ? sum.gpu_hours : sum.cpu_hours) += left;
  }
  return sum;
}

std::string resources_text(const Resources& resources) {
  std::string text = std::to_string(resources.ranks()) + (resources.ranks() == 1 ? " rank" : " ranks");
  if (resources.nodes > 1) text += fmt::format(" on {} nodes", resources.nodes);
  if (resources.gpus_per_node > 0) text += fmt::format(", {} GPU", resources.nodes * resources.gpus_per_node);
  return text;
}

// ---- submissions ----------------------------------------------------------------------------------------------------

// Everything but the coordinates that a cell is started with.
std::string fingerprint(const Cell& cell) {
  nlohmann::json json = cell_json(cell);
  for (const char* name : {"model", "dataset", "window", "sinks", "decode", "target"}) json.erase(name);
  return sha256_of(dump_json(json, -1)).substr(0, 12);
}

// Of what somebody may have edited; "" where it is no text.
std::string text_of(const nlohmann::json& json, const char* name) {
  const auto found = json.is_object() ? json.find(name) : json.end();
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string what_of(const std::string& name, const nlohmann::json& cell) {
  const std::string what = text_of(cell, "what");
  return one_line(what.empty() ? name : what);
}

std::optional<nlohmann::json> newest_submission(const Sweep& sweep, std::string& id) {
  std::vector<fs::path> directories;
  std::error_code error;
  for (fs::directory_iterator entry(sweep.file.output / "submissions", error), end; !error && entry != end;
       entry.increment(error)) {
    directories.push_back(entry->path());
  }
  std::sort(directories.rbegin(), directories.rend());  // by time: it is in front of the name
  for (const fs::path& directory : directories) {
    const auto json = read_json(directory / "cells.json");
    if (!json || !json->is_object() || !json->contains("sweep")) continue;
    const nlohmann::json& record = (*json)["sweep"];
    if (!record.is_object() || text_of(record, "name") != sweep.file.name || !record.contains("cells")) continue;
    id = directory.filename().string();
    return record["cells"];
  }
  return std::nullopt;
}

// Newest change of a file, or of the files in a directory.
fs::file_time_type changed(const fs::path& path, std::map<std::string, fs::file_time_type>& known) {
  const auto [entry, is_new] = known.try_emplace(path.string(), fs::file_time_type::min());
  if (!is_new) return entry->second;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    entry->second = fs::last_write_time(path, error);
    return entry->second;
  }
  for (fs::directory_iterator file(path, error), end; !error && file != end; file.increment(error)) {
    const std::string name = file->path().filename().string();
    if (name != "config.json" && !name.ends_with(".safetensors") && !name.ends_with(".index.json")) continue;
    std::error_code ignored;
    entry->second = std::max(entry->second, file->last_write_time(ignored));
  }
  return entry->second;
}

}  // namespace

SweepView look_at(const Sweep& sweep, const std::map<std::string, QueueEntry>& queue, const std::string& note) {
  SweepView view{.sweep = sweep, .states = {}, .note = note};
  view.states.reserve(sweep.cells.size());
  for (const SweepCell& cell : sweep.cells) view.states.push_back(cell_status(cell.cell, queue));
  return view;
}

std::string status_text(const SweepView& view) {
  TerminalTable table(kGap);
  table.add(header(view, {"state", "done", "to go", "tries", "job", ""}));
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    const CellStatus& status = view.states[i];
    Row row = coordinates(view, view.sweep.cells[i].cell);
    row.emplace_back(state_name(status.state));
    row.push_back(fmt::format("{:3.0f} %", 100.0 * status.progress));
    row.push_back(status.eta_seconds ? format_duration(*status.eta_seconds) : "");
    row.push_back(status.attempts == 0 ? "" : std::to_string(status.attempts));
    row.push_back(status.job);
    const bool has_log = !status.last_error.empty() && !status.log.empty() && status.state != CellState::kQueued;
    row.push_back(status.last_error + (has_log ? " (log: " + status.log.string() + ")" : ""));
    table.add(std::move(row));
  }
  return table.text() + counted(view) + (view.note.empty() ? "" : "note: " + view.note + "\n");
}

nlohmann::json status_json(const SweepView& view) {
  nlohmann::json json = head(view);
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    json["cells"].push_back(cell_view(view.sweep.cells[i].cell, view.states[i]));
  }
  return json;
}

std::string plan_text(const SweepView& view, const std::vector<Price>& prices) {
  TerminalTable table(kGap);
  table.add(header(view, {"seeds", "runs on", "hours", "state", ""}));
  std::set<std::string> unknown;
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    const Cell& cell = view.sweep.cells[i].cell;
    Row row = coordinates(view, cell);
    row.push_back(std::to_string(cell.seeds.size()));
    row.push_back(resources_text(cell.resources));
    row.push_back(prices[i].unknown.empty() ? hours_text(prices[i].rank_hours / cell.resources.ranks()) : "?");
    row.emplace_back(state_name(view.states[i].state));
    if (!prices[i].unknown.empty()) unknown.insert(prices[i].unknown);
    table.add(std::move(row));
  }
  std::string text = table.text() + counted(view);
  const Totals sum = totals(view, prices);
  text += "left to do, very roughly:";
  if (sum.gpu_hours > 0.0 || sum.cpu_hours == 0.0) text += fmt::format(" {} GPU hours", hours_text(sum.gpu_hours));
  if (sum.cpu_hours > 0.0) {
    text += fmt::format("{} {} hours of CPU ranks", sum.gpu_hours > 0.0 ? "," : "", hours_text(sum.cpu_hours));
  }
  text += sum.unknown > 0 ? fmt::format(", without {} cells that have no price\n", sum.unknown) : "\n";
  for (const std::string& why : unknown) text += "warning: " + why + "\n";
  for (const std::string& note : view.sweep.notes) text += "note: " + note + "\n";
  for (const std::string& line : outdated(view)) text += "warning: " + line + "\n";
  return text + (view.note.empty() ? "" : "note: " + view.note + "\n");
}

nlohmann::json plan_json(const SweepView& view, const std::vector<Price>& prices) {
  nlohmann::json json = head(view);
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    const Cell& cell = view.sweep.cells[i].cell;
    nlohmann::json entry = cell_view(cell, view.states[i]);
    entry["resources"] = cell_json(cell)["resources"];
    entry["rank_hours"] = prices[i].unknown.empty() ? nlohmann::json(prices[i].rank_hours) : nlohmann::json();
    entry["hours"] =
        prices[i].unknown.empty() ? nlohmann::json(prices[i].rank_hours / cell.resources.ranks()) : nlohmann::json();
    if (!prices[i].unknown.empty()) entry["warning"] = prices[i].unknown;
    json["cells"].push_back(std::move(entry));
  }
  const Totals sum = totals(view, prices);
  json["missing"] = {
      {"gpu_hours", sum.gpu_hours}, {"cpu_rank_hours", sum.cpu_hours}, {"cells_without_price", sum.unknown}};
  json["notes"] = view.sweep.notes;
  json["warnings"] = outdated(view);
  return json;
}

std::vector<std::string> outdated(const SweepView& view) {
  std::vector<std::string> lines;
  std::map<std::string, fs::file_time_type> known;
  for (std::size_t i = 0; i < view.states.size(); ++i) {
    if (view.states[i].state != CellState::kDone) continue;
    const SweepCell& cell = view.sweep.cells[i];
    std::error_code error;
    const fs::file_time_type written = fs::last_write_time(cell.cell.results(0), error);
    if (error) continue;
    std::vector<fs::path> inputs = {cell.options.model, cell.options.data};
    for (const auto& [name, file] : cell.options.controls) inputs.push_back(file);
    for (const fs::path& file : selections_of(cell)) inputs.push_back(file);
    for (const fs::path& input : inputs) {
      if (changed(input, known) <= written) continue;
      lines.push_back(input.string() + " is newer than the result of " + cell.cell.name + "; move " +
                      cell.cell.run_directory.string() + " away to measure it anew");
    }
  }
  return lines;
}

nlohmann::json submission_record(const Sweep& sweep) {
  nlohmann::json cells = nlohmann::json::object();
  for (const SweepCell& cell : sweep.cells) {
    cells[cell.cell.name] = {{"what", describe(cell.cell)}, {"settings", fingerprint(cell.cell)}};
  }
  return {{"sweep",
           {{"name", sweep.file.name}, {"file", fs::absolute(sweep.file.path).string()}, {"cells", std::move(cells)}}}};
}

std::vector<std::string> changes_since_submission(const Sweep& sweep) {
  constexpr std::size_t kMostDetails = 10;
  std::string id;
  const std::optional<nlohmann::json> before = newest_submission(sweep, id);
  if (!before || !before->is_object()) return {};
  const nlohmann::json now = submission_record(sweep)["sweep"]["cells"];
  std::vector<std::string> details;
  int added = 0;
  int removed = 0;
  int altered = 0;
  for (const auto& [name, cell] : now.items()) {
    const auto former = before->find(name);
    if (former == before->end()) {
      ++added;
      details.push_back("  new: " + what_of(name, cell));
    } else if (text_of(*former, "settings") != text_of(cell, "settings")) {
      ++altered;
      details.push_back("  other resources, seeds or flags: " + what_of(name, cell));
    }
  }
  for (const auto& [name, cell] : before->items()) {
    if (now.contains(name)) continue;
    ++removed;
    details.push_back("  no longer in it: " + what_of(name, cell) + " (what it has in " +
                      (sweep.file.output / "runs" / name).string() + " stays)");
  }
  if (details.empty()) return {};
  std::vector<std::string> lines = {fmt::format(
      "{} has changed since submission {}: {} new cells, {} no longer in it, {} with other resources, seeds or "
      "flags; finished cells stay",
      sweep.file.path.string(), id, added, removed, altered)};
  if (details.size() > kMostDetails) {
    const std::size_t more = details.size() - kMostDetails;
    details.resize(kMostDetails);
    details.push_back(fmt::format("  and {} more", more));
  }
  lines.insert(lines.end(), details.begin(), details.end());
  return lines;
}

}  // namespace winnow::sweep
