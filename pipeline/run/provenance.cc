#include "pipeline/run/provenance.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/clock.h"
#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "pipeline/runtime/mpi_check.h"

namespace winnow::run {
namespace {

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  WINNOW_MPI(MPI_Get_library_version(text.data(), &length));
  const std::string full(text.data(), static_cast<std::size_t>(length));
  return full.substr(0, full.find(','));
}

template <typename Get>
std::string unique_list(const std::vector<RankFacts>& ranks, Get get) {
  std::set<std::string> values;
  for (const RankFacts& rank : ranks) values.insert(get(rank));
  std::string list;
  for (const std::string& value : values) list += (list.empty() ? "" : "; ") + value;
  return list;
}

void describe_program(const RunSummary& run, storage::Provenance& provenance) {
  const RunOptions& options = run.options;
  provenance.set("winnow_version", options.version, "version of winnow");
  provenance.set("git_revision", options.git_revision, "revision of winnow's sources");
  provenance.set("command", options.command, "command line of the run that finished the measurement");
  provenance.set("finished", utc_now(), "when this file was computed, UTC");
  provenance.set("mpi_library", mpi_library(), "MPI library");
  provenance.set("compiler", std::string(__VERSION__), "compiler of the program");
}

// "plain", or the formats of quantised weights with the number of tensors of each.
std::string weight_format(const model::Checkpoint& checkpoint) {
  std::string text;
  for (const auto& [format, n_tensors] : checkpoint.weight_formats()) {
    text += (text.empty() ? "" : "; ") + format + " (" + std::to_string(n_tensors) + " tensors)";
  }
  return text.empty() ? "plain" : text;
}

void describe_measurement(const RunSummary& run, storage::Provenance& provenance) {
  const Settings& settings = run.inputs.settings;
  const RunIdentity& identity = run.identity;
  const auto set_path = [&](const std::string& name, const std::string& path, const std::string& what) {
    provenance.set(name, path, what);
    if (!is_utf8(path)) provenance.set(name + "_encoded", encoded_path(path), "bytes of " + name + ", percent-encoded");
  };
  set_path("model", run.options.model.string(), "checkpoint directory");
  provenance.set("model_type", run.inputs.config.model_type, "family, as config.json names it");
  provenance.set("model_layers", run.inputs.config.n_layers, "layers of the model");
  provenance.set("weight_format", weight_format(*run.inputs.checkpoint),
                 "how the checkpoint stores its weights; what is quantised is computed with the values it stands for");
  provenance.set("checkpoint_sha256", identity.checkpoint_sha256, "SHA-256 over config.json and the weights");
  set_path("data", run.options.data.string(), "calibration file");
  provenance.set("data_sha256", identity.data_sha256, "SHA-256 of the calibration file");
  for (const auto& [name, sha256] : control_hashes(run.inputs.data_sets)) {
    provenance.set("control_sha256." + name, sha256, "SHA-256 of the file of control " + name);
  }
  provenance.set("window", settings.given_window, "window as given", "tokens");
  if (!settings.other_window_keys.empty()) {
    provenance.set("windows", joined(settings.windows(), ","), "all windows that every layer was measured under");
  }
  if (!settings.kv_types.empty()) {
    provenance.set("kv_types", joined_names(settings.kv_types, ","),
                   "types of keys and values that every layer was measured in besides as computed");
  }
  provenance.set("window_keys", settings.window_keys, "keys that a row of a windowed layer sees, itself included",
                 "tokens");
  provenance.set("sinks", settings.sinks, "first tokens that every row sees besides", "tokens");
  provenance.set("decode", settings.decode_name(), "whether answer rows obey the window");
  provenance.set("tail_rows", settings.tail_rows.value_or(-1),
                 "rows before the answer that obey the window; -1: all rows", "tokens");
  provenance.set("base", settings.base_name,
                 run.inputs.kind == "calibrate" ? "pattern that every variant differs from in one layer"
                                                : "pattern that the others are compared with");
  if (run.inputs.kind == "calibrate") {
    const std::string signals = settings.signals.name();
    provenance.set("signals", signals.empty() ? "none" : signals,
                   "signals measured besides NLL and matches: sensitivity:ROWS before the answer that lose the "
                   "attention, lazy:SINKS:RECENT:LAST");
  }
  const engine::LayerRules& rules = settings.rules;
  std::vector<int64_t> native;
  for (std::size_t layer = 0; layer < rules.native.size(); ++layer) {
    if (rules.native[layer]) native.push_back(static_cast<int64_t>(layer));
  }
  if (!native.empty()) {
    provenance.set("native_window", rules.native_window.keys,
                   "keys that a row of a layer with a window of its own sees, itself included, in every pattern",
                   "tokens");
    provenance.set("native_window_layers", joined(native, ","),
                   "layers with a window of their own: they keep it and are not measured");
  }
  if (!identity.positions.empty()) {
    provenance.set("positions", identity.positions,
                   "positions of a layer that gets a window: by type, those of a layer with one");
  }
  provenance.set("target", run.options.target, "engine whose window rules were used, empty: none named");
  provenance.set("backend", identity.backend, "device of the forward passes");
  provenance.set("attention_path", identity.attention_path, "how attention is computed");
  provenance.set("compute_dtype", identity.compute_dtype, "type of activations");
  provenance.set("residual_dtype", identity.residual_dtype, "type of the residual stream");
  std::string warnings;
  for (const std::string& warning : run.inputs.warnings) warnings += (warnings.empty() ? "" : "; ") + warning;
  provenance.set("warnings", warnings, "what a reader of the figures should know, empty: nothing");
}

// Of the last run that measured cells: a later one that only computes statistics knows nothing of it.
void describe_ranks(const RunSummary& run, const nlohmann::json& record, storage::Provenance& provenance) {
  std::vector<RankFacts> ranks = run.ranks;
  std::string profile;
  double wall_seconds = 0.0;
  int64_t cells = 0;
  if (const auto runs = record.find("runs"); runs != record.end() && runs->is_array() && !runs->empty()) {
    ranks.clear();
    for (const nlohmann::json& rank : runs->back().value("rank", nlohmann::json::array())) {
      ranks.push_back(RankFacts::from_json(rank));
    }
    if (runs->back().contains("profile")) profile = json_text(runs->back()["profile"], -1);
    for (const nlohmann::json& past : *runs) {
      wall_seconds += past.value("wall_seconds", 0.0);
      cells += past.value("cells_done", int64_t{0});
    }
  }
  double busy_seconds = 0.0;
  double load_seconds = 0.0;
  int64_t load_bytes = 0;
  int64_t threads = 0;
  for (const RankFacts& rank : ranks) {
    busy_seconds += rank.busy_seconds;
    load_seconds = std::max(load_seconds, rank.load_seconds);
    load_bytes += rank.load_bytes;
    threads = std::max(threads, rank.threads);
  }
  const RankFacts most = largest_memory(ranks);
  provenance.set("ranks", static_cast<int64_t>(ranks.size()), "MPI ranks of the last run that measured");
  provenance.set("threads_per_rank", threads, "threads of a rank, the most of any");
  provenance.set("hosts", unique_list(ranks, [](const RankFacts& r) { return r.host; }), "hosts");
  provenance.set("processors", unique_list(ranks, [](const RankFacts& r) { return r.processor; }), "processors");
  provenance.set("devices", unique_list(ranks, [](const RankFacts& r) { return r.backend; }),
                 "devices, threads and libraries of the ranks");
  provenance.set("reduction", unique_list(ranks, [](const RankFacts& r) { return r.reduction; }),
                 "how tables were summed over the ranks: a version of NCCL, mpi, or none for one rank");
  provenance.set("load_bytes", load_bytes, "weights read into the backends' memory before measuring, over the ranks",
                 "bytes");
  provenance.set("load_seconds", load_seconds, "time until the weights were in place, the longest of any rank", "s");
  provenance.set("wall_seconds", wall_seconds, "time of all runs of this directory that measured", "s");
  provenance.set("busy_seconds", busy_seconds, "time in units, summed over the ranks of the last run", "s");
  provenance.set("profile", profile, "times of the operations on rank 0 as JSON (--profile), empty: not asked for");
  provenance.set("cells_measured", cells, "cells measured by all runs of this directory");
  provenance.set("predicted_bytes", most.predicted_bytes, "memory predicted for the largest unit of a rank", "bytes");
  provenance.set("peak_allocated_bytes", most.peak_allocated_bytes, "peak of winnow's own allocations on a rank",
                 "bytes");
  provenance.set("peak_resident_bytes", most.peak_resident_bytes, "peak of a rank's process", "bytes");
}

}  // namespace

nlohmann::json RankFacts::to_json() const {
  return {{"host", host},
          {"processor", processor},
          {"kernels", kernels},
          {"backend", backend},
          {"threads", threads},
          {"available_bytes", available_bytes},
          {"predicted_bytes", predicted_bytes},
          {"peak_allocated_bytes", peak_allocated_bytes},
          {"peak_resident_bytes", peak_resident_bytes},
          {"reduction", reduction},
          {"load_bytes", load_bytes},
          {"load_seconds", load_seconds},
          {"units", units},
          {"busy_seconds", busy_seconds}};
}

RankFacts RankFacts::from_json(const nlohmann::json& json) {
  return {.host = json.value("host", ""),
          .processor = json.value("processor", ""),
          .kernels = json.value("kernels", ""),
          .backend = json.value("backend", ""),
          .threads = json.value("threads", int64_t{0}),
          .available_bytes = json.value("available_bytes", int64_t{0}),
          .predicted_bytes = json.value("predicted_bytes", int64_t{0}),
          .peak_allocated_bytes = json.value("peak_allocated_bytes", int64_t{0}),
          .peak_resident_bytes = json.value("peak_resident_bytes", int64_t{0}),
          .reduction = json.value("reduction", ""),
          .load_bytes = json.value("load_bytes", int64_t{0}),
          .load_seconds = json.value("load_seconds", 0.0),
          .units = json.value("units", int64_t{0}),
          .busy_seconds = json.value("busy_seconds", 0.0)};
}

RankFacts largest_memory(const std::vector<RankFacts>& ranks) {
  RankFacts most;
  for (const RankFacts& rank : ranks) {
    most.predicted_bytes = std::max(most.predicted_bytes, rank.predicted_bytes);
    most.peak_allocated_bytes = std::max(most.peak_allocated_bytes, rank.peak_allocated_bytes);
    most.peak_resident_bytes = std::max(most.peak_resident_bytes, rank.peak_resident_bytes);
  }
  return most;
}

void describe_run(const RunSummary& run, RunRecord& record, storage::Provenance& provenance) {
  describe_program(run, provenance);
  describe_measurement(run, provenance);
  if (nlohmann::json parts = run.parts_until_now(); !parts.is_null()) {
    record.informative()["runs"].back()["profile"]["timeline"] = std::move(parts);
  }
  describe_ranks(run, record.informative(), provenance);
  provenance.set("run_json", record.text(), "run.json of the run directory");
}

}  // namespace winnow::run
