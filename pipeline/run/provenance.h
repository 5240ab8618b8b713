// Records where a result comes from: what the ranks are and did, and /provenance made of it.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "pipeline/run/inputs.h"
#include "pipeline/run/run_directory.h"
#include "pipeline/runtime/timeline.h"
#include "results/calibration/results.h"

namespace winnow::run {

// Facts of one rank, gathered from all for logs and provenance.
struct RankFacts {
  std::string host;
  std::string processor;
  std::string kernels;  // cpu_kernels() where the backend is the CPU's, else ""
  std::string backend;  // Device::description()
  int64_t threads = 0;
  int64_t available_bytes = 0;       // that were free for this rank when it started
  int64_t predicted_bytes = 0;       // of its largest unit
  int64_t peak_allocated_bytes = 0;  // of the backend
  int64_t peak_resident_bytes = 0;   // of the process
  std::string reduction;             // how tables are summed over ranks: "nccl 2.28.9", "mpi", "none" (one rank)
  int64_t load_bytes = 0;            // of weights that this rank read into the backend's memory when it started
  double load_seconds = 0.0;         // until it had them, read or sent
  int64_t units = 0;
  double busy_seconds = 0.0;

  nlohmann::json to_json() const;
  static RankFacts from_json(const nlohmann::json& json);
};

// Returns the largest of each memory figure over the ranks; the rest is empty.
RankFacts largest_memory(const std::vector<RankFacts>& ranks);

// A run whose cells are all there.
struct RunSummary {
  const RunOptions& options;
  const Inputs& inputs;
  const RunIdentity& identity;
  const std::vector<RankFacts>& ranks;
  runtime::Timeline& timeline;                      // of rank 0
  std::function<nlohmann::json()> parts_until_now;  // of all ranks; returns null where no profile is asked for
};

// Adds program, measurement, ranks and run.json of the run, in that order. Rank 0 only.
void describe_run(const RunSummary& run, RunRecord& record, storage::Provenance& provenance);

}  // namespace winnow::run
