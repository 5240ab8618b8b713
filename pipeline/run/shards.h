// Finished scores on disk: one small HDF5 file per unit, in UnitStore::shards(). Resume trusts only whole shards of the
// same measurement; every other one is set aside and its cells are measured again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/engine/sweep.h"

namespace winnow::run {

// The cells of one finished unit.
struct Shard {
  std::string data_set;  // "calibration" or "control/NAME"
  int64_t example = 0;   // index in the calibration file
  std::string example_id;
  std::vector<int64_t> variants;  // kBaseVariant or a number (pipeline/run/score_table.h)
  // Names of named variants, "" for the base; they count, as numbers differ between commands. Else empty.
  std::vector<std::string> names;
  std::vector<engine::Score> scores;  // one per variant
  bool has_kl = false;                // whether the scores' KL was measured
  engine::SignalLayout signals = {};  // of layers, that the scores have
  int64_t n_tokens = 0;               // answer tokens; token NLLs have that many entries, or none
  double seconds = 0.0;               // that the unit took
  std::string made_by;                // rank and host, for whoever reads the file
};

// Measurement that a shard is of.
struct ShardIdentity {
  std::string measurement;  // hash of the measurement identity (pipeline/run/run_identity.h)
  std::string data_sha256;  // of the calibration file of its data set
};

// Writes DIRECTORY/DATASET.eEXAMPLE.HASH.h5 atomically and synced. Throws Error(kIoError | kCannotCreate).
void write_shard(const std::filesystem::path& directory, const Shard& shard, const ShardIdentity& identity);

// A shard with its own identity, by which the caller decides whether it belongs.
struct ShardFile {
  Shard shard;
  ShardIdentity identity;
};
// Reads a shard. Throws Error(kBadData | kIoError | kNoInput) when it is damaged or not of that format.
ShardFile read_shard(const std::filesystem::path& file);

}  // namespace winnow::run
