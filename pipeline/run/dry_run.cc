#include "pipeline/run/dry_run.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>

#include "base/json.h"
#include "base/node.h"
#include "base/strings.h"

namespace winnow::run {
namespace {

// Measured: an HDF5 file of one unit without and with its columns, and results.h5 without its tables.
constexpr int64_t kShardBytes = int64_t{14} * 1024;
constexpr int64_t kBytesPerCell = 25;
constexpr int64_t kResultsBytes = int64_t{300} * 1024;
constexpr int64_t kResultsBytesPerCell = 40;

// The nearest directory that exists: the run directory may not be there yet.
std::string existing_parent(std::filesystem::path path) {
  path = std::filesystem::absolute(path);
  while (!std::filesystem::exists(path) && path.has_relative_path()) path = path.parent_path();
  return path.string();
}

nlohmann::json stream_json(const StreamForecast& stream) {
  return {{"layers", stream.n_streamed},
          {"of_layers", stream.n_layers},
          {"from", stream.host_bytes > 0 ? "host memory" : "checkpoint"},
          {"host_bytes", stream.host_bytes},
          {"units_together", stream.most_together},
          {"load_seconds", stream.load_seconds},
          {"compute_seconds", stream.compute_seconds},
          {"limit", stream.limit()}};
}

std::string stream_text(const StreamForecast& stream) {
  const std::string from =
      stream.host_bytes > 0 ? format_bytes(stream.host_bytes) + " of a host's memory" : "the checkpoint's files";
  const std::map<std::string, std::string> words = {
      {"compute", "computing"}, {"copy", "copying (PCI Express on a GPU)"}, {"read", "reading the checkpoint"}};
  return fmt::format(
      "  stream  {} of {} layers come from {}, for up to {} unit(s) at a time: {} for them {} {} of computing; {} "
      "limits\n",
      stream.n_streamed, stream.n_layers, from, stream.most_together, format_duration(stream.load_seconds),
      stream.loads_beside ? "beside" : "and", format_duration(stream.compute_seconds), words.at(stream.limit()));
}

}  // namespace

Forecast make_forecast(const Inputs& inputs, std::span<const WorkUnit> units, const RunOptions& options,
                       int64_t n_ranks) {
  Forecast forecast;
  forecast.n_units = static_cast<int64_t>(units.size());
  forecast.seconds = predict_makespan(units, n_ranks);
  forecast.lanes_per_example = static_cast<int64_t>(inputs.wanted.size());
  int64_t token_bytes = 0;
  for (const DataSet& data : inputs.data_sets) {
    const auto cells_per_example = static_cast<int64_t>(data.wanted_of(inputs.wanted).size()) + 1;
    forecast.cells_total += data.n_examples * cells_per_example;
    for (int64_t e = 0; options.per_token && e < data.n_examples; ++e) {
      token_bytes += data.n_answer(e) * cells_per_example * static_cast<int64_t>(sizeof(float));
    }
  }
  for (const WorkUnit& unit : units) forecast.cells_missing += unit.n_cells();
  forecast.disk_bytes = forecast.n_units * kShardBytes + forecast.cells_missing * kBytesPerCell + kResultsBytes +
                        forecast.cells_total * kResultsBytesPerCell + 2 * token_bytes;
  forecast.free_disk_bytes = free_disk_bytes(existing_parent(options.out));
  return forecast;
}

std::string forecast_text(const Forecast& forecast, const std::vector<RankFacts>& ranks, bool json) {
  if (json) {
    nlohmann::json object = {{"dry_run", true},
                             {"units", forecast.n_units},
                             {"cells_missing", forecast.cells_missing},
                             {"cells_total", forecast.cells_total},
                             {"lanes_per_example", forecast.lanes_per_example},
                             {"predicted_seconds", forecast.seconds},
                             {"start_seconds", forecast.start_seconds},
                             {"predicted_text_seconds", forecast.text_seconds},
                             {"predicted_bytes_per_rank", forecast.unit_bytes},
                             {"memory_limit_bytes_per_rank", forecast.limit_bytes},
                             {"disk_bytes", forecast.disk_bytes},
                             {"free_disk_bytes", forecast.free_disk_bytes},
                             {"ranks", nlohmann::json::array()}};
    for (const RankFacts& rank : ranks) object["ranks"].push_back(rank.to_json());
    if (forecast.stream) object["stream"] = stream_json(*forecast.stream);
    return json_text(object, 2) + "\n";
  }
  std::string text = "Dry run: nothing is measured or written.\n";
  std::map<std::string, std::vector<const RankFacts*>> by_host;
  for (const RankFacts& rank : ranks) by_host[rank.host].push_back(&rank);
  for (const auto& [host, members] : by_host) {
    int64_t threads = 0;
    int64_t available = 0;
    for (const RankFacts* rank : members) {
      threads += rank->threads;
      available += rank->available_bytes;
    }
    text += fmt::format("  host    {}: {} rank(s), {} thread(s) together, {} of memory for them, {}\n", host,
                        members.size(), threads, format_bytes(available), members.front()->processor);
  }
  text += fmt::format("  work    {} of {} cells are missing; {} unit(s)\n", forecast.cells_missing,
                      forecast.cells_total, forecast.n_units);
  text += fmt::format("  lanes   {} an example, beside its base\n", forecast.lanes_per_example);
  text += fmt::format("  time    about {} on {} rank(s), after a start of {}\n", format_duration(forecast.seconds),
                      ranks.size(), format_duration(forecast.start_seconds));
  if (forecast.text_seconds > 0.0) {
    text += fmt::format("  texts   about {} more\n", format_duration(forecast.text_seconds));
  }
  text += fmt::format("  memory  {} of a rank's {} (--max-memory changes how many lanes run together)\n",
                      format_bytes(forecast.unit_bytes), format_bytes(forecast.limit_bytes));
  if (forecast.stream) text += stream_text(*forecast.stream);
  text += fmt::format("  disk    about {}, {} free\n", format_bytes(forecast.disk_bytes),
                      forecast.free_disk_bytes < 0 ? "unknown" : format_bytes(forecast.free_disk_bytes));
  return text;
}

}  // namespace winnow::run
