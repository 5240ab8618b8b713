#include "pipeline/run/run_directory.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/own_files.h"
#include "results/storage/own_hdf5.h"

namespace winnow::run {
namespace {

const DataSet* find_data_set(const std::vector<DataSet>& data_sets, const std::string& name) {
  const auto found =
      std::find_if(data_sets.begin(), data_sets.end(), [&](const DataSet& data) { return data.name == name; });
  return found == data_sets.end() ? nullptr : &*found;
}

[[noreturn]] void reject(const std::string& what) { fail(ExitCode::kBadData, what); }

// Throws Error(kBadData) with the reason when the shard does not belong to this measurement of this data set.
void check_shard(const ShardFile& file, const std::string& measurement, const DataSet& data, int64_t n_variants) {
  const Shard& shard = file.shard;
  if (file.identity.measurement != measurement) reject("it belongs to a measurement with other settings");
  if (file.identity.data_sha256 != data.corpus.sha256) reject("it was measured on other data");
  if (shard.example < 0 || shard.example >= data.corpus.size() ||
      data.corpus.example_id[static_cast<std::size_t>(shard.example)] != shard.example_id) {
    reject("its example " + std::to_string(shard.example) + " (" + shard.example_id + ") is not in the data");
  }
  if (shard.n_tokens != data.n_answer(shard.example)) reject("its number of answer tokens is not the example's");
  for (const int64_t variant : shard.variants) {
    if (variant < kBaseVariant || variant >= n_variants) {
      reject("variant " + std::to_string(variant) + " does not exist");
    }
  }
}

// Gives the variants of a shard the numbers that their names have in this command.
void renumber(Shard& shard, const NumberVariant& number, ScoreTable& cells) {
  if (shard.names.empty() != !number) reject("it does not say which patterns it holds, as its kind of run does");
  for (std::size_t i = 0; i < shard.names.size(); ++i) {
    shard.variants[i] = shard.names[i].empty() ? kBaseVariant : number(shard.names[i]);
    cells.grow(shard.variants[i] + 1);
  }
}

void take_cells(const Shard& shard, int64_t n_examples, ScoreTable& cells) {
  if (shard.example >= n_examples) return;
  for (std::size_t i = 0; i < shard.variants.size(); ++i) {
    if (cells.keeps_tokens() && shard.scores[i].token_nll_nats.empty()) continue;
    // Two shards may hold the same cell: one with and one without token NLLs.
    if (!cells.has(shard.example, shard.variants[i])) cells.put(shard.example, shard.variants[i], shard.scores[i]);
  }
}

// What a run writes in RUN_DIR, for check_outputs().
std::vector<Output> run_outputs(const std::filesystem::path& run_directory) {
  const std::filesystem::path record = run_directory / "run.json";
  std::vector<Output> outputs = {{.flag = "--out", .path = run_directory, .kind = Output::Kind::kFolder}};
  std::error_code error;
  if (!std::filesystem::is_directory(run_directory, error)) return outputs;
  Output results = storage::results_output("", run_directory / "results.h5");
  // One that cannot be read any more is ours where the record says that we wrote one.
  results.is_own = [record, is_result = results.is_own](const std::filesystem::path& old) {
    return is_result(old) || is_json_with(record, {"format", "identity", "informative"});
  };
  outputs.push_back(std::move(results));
  outputs.push_back({.flag = "", .path = record, .what = "a run record", .is_own = [](const auto& old) {
                       return is_own_json(old, "winnow-run");
                     }});
  outputs.push_back(
      {.flag = "", .path = run_directory / "progress.json", .what = "a run's progress", .is_own = [](const auto& old) {
         return is_json_with(old, {"units_done", "cells_total"});
       }});
  outputs.push_back({.flag = "", .path = run_directory / "lock"});  // RunLock looks into it
  for (const UnitStore& units : unit_stores(run_directory)) {
    outputs.push_back({.flag = "", .path = units.folder(), .kind = Output::Kind::kOwnFolder});
  }
  return outputs;
}

}  // namespace

void check_run_outputs(const std::filesystem::path& run_directory, const std::vector<Output>& others,
                       const ReadPaths& read) {
  std::vector<Output> outputs = run_outputs(run_directory);
  outputs.insert(outputs.end(), others.begin(), others.end());
  check_outputs(outputs, read);
  const auto refuse_inside = [&](const std::filesystem::path& path, const char* what) {
    std::error_code error;
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
    for (const UnitStore& units : unit_stores(run_directory)) {
      if (!std::filesystem::equivalent(folder, units.folder(), error) || error) continue;
      fail(ExitCode::kUsage, path.string() + ": " + what + " is in a folder that the run directory keeps for itself, " +
                                 units.folder().string() + "; name it elsewhere");
    }
    const bool is_beside = std::filesystem::equivalent(folder, run_directory, error) && !error;
    if (is_beside && is_temporary_name(path.filename().string())) {
      fail(ExitCode::kUsage, path.string() + ": " + what + " has the name of a temporary file; rename it");
    }
  };
  for (const std::filesystem::path& file : read.files) refuse_inside(file, "a file that is read");
  for (const Output& output : others) refuse_inside(output.path, "an output");
}

std::map<std::string, std::string> control_hashes(const std::vector<DataSet>& data_sets) {
  std::map<std::string, std::string> hashes;
  for (std::size_t i = 1; i < data_sets.size(); ++i) {
    hashes[data_sets[i].name.substr(data_sets[i].name.find('/') + 1)] = data_sets[i].corpus.sha256;
  }
  return hashes;
}

RunDirectory::RunDirectory(const std::filesystem::path& path, const std::string& host, const RunIdentity& identity,
                           const std::vector<DataSet>& data_sets)
    : path_(path) {
  make_run_folder(path);
  lock_ = std::make_unique<runtime::RunLock>(path, host);
  record_ = RunRecord::read(path);
  record_.adopt(identity, control_hashes(data_sets));
  UnitStore::shards(path).make();
  remove_leftovers(path);
  for (const UnitStore& units : unit_stores(path)) remove_leftovers(units.folder());
  record_.write(path);
}

std::vector<std::string> load_shards(const std::filesystem::path& run_directory, const std::string& measurement,
                                     const std::vector<DataSet>& data_sets, std::vector<ScoreTable>& cells,
                                     BadShards bad, const NumberVariant& number) {
  std::vector<std::string> notes;
  const auto use = [&](const std::filesystem::path& path) {
    ShardFile file = read_shard(path);
    const DataSet* data = find_data_set(data_sets, file.shard.data_set);
    if (data == nullptr && file.identity.measurement == measurement) return;
    if (data == nullptr) reject("it belongs to a measurement with other settings");
    ScoreTable& table = cells[static_cast<std::size_t>(data - data_sets.data())];
    if (file.identity.measurement == measurement) renumber(file.shard, number, table);
    check_shard(file, measurement, *data, table.n_variants());
    take_cells(file.shard, data->n_examples, table);
  };
  UnitStore::shards(run_directory).read_all(use, [&](const std::filesystem::path& path, const std::string& reason) {
    std::string note = "shard " + path.filename().string() + " cannot be used (" + reason + ")";
    if (bad == BadShards::kSetAside) {
      note += ": set aside as " + set_unit_aside(path).filename().string() + ", its cells are measured again";
    }
    notes.push_back(std::move(note));
  });
  return notes;
}

std::vector<MissingCells> find_missing(const std::vector<DataSet>& data_sets, const std::vector<ScoreTable>& cells,
                                       std::span<const int64_t> variants) {
  std::vector<MissingCells> missing;
  for (std::size_t d = 0; d < data_sets.size(); ++d) {
    for (int64_t e = 0; e < data_sets[d].n_wanted; ++e) {
      MissingCells example{
          .data_set = static_cast<int64_t>(d), .example = e, .base = !cells[d].has(e, kBaseVariant), .variants = {}};
      for (const int64_t variant : data_sets[d].wanted_of(variants)) {
        if (!cells[d].has(e, variant)) example.variants.push_back(variant);
      }
      if (example.base || !example.variants.empty()) missing.push_back(std::move(example));
    }
  }
  return missing;
}

}  // namespace winnow::run
