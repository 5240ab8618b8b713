// The run directory of one calibration: lock, record, finished cells.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/cells.h"
#include "pipeline/inputs.h"
#include "pipeline/lock.h"
#include "pipeline/run_identity.h"
#include "pipeline/shards.h"

namespace winnow {

// Rank 0's hold on RUN_DIR. The lock lasts as long as the object.
class RunDirectory {
 public:
  // Makes the directory where it is missing, locks it, and checks that it is this measurement. Throws
  // Error(kCannotCreate | kInterrupted | kConfigMismatch | kBadData | kIoError).
  RunDirectory(const std::filesystem::path& path, const std::string& host, const RunIdentity& identity,
               const std::vector<DataSet>& data_sets);

  RunRecord& record() { return record_; }
  void write_record() const { record_.write(path_); }

 private:
  std::filesystem::path path_;
  std::unique_ptr<RunLock> lock_;
  RunRecord record_;
};

std::filesystem::path shard_directory(const std::filesystem::path& run_directory);
std::map<std::string, std::string> control_hashes(const std::vector<DataSet>& data_sets);

// What to do with a shard that cannot be used: set it aside, or leave it (a dry run changes nothing).
enum class BadShards { kSetAside, kLeave };
// Puts the cells of all shards of this measurement into `cells` (one table per data set) and returns one line for each
// shard that cannot be used. Shards of controls that this command does not name are passed over in silence.
std::vector<std::string> load_shards(const std::filesystem::path& run_directory, const std::string& measurement,
                                     const std::vector<DataSet>& data_sets, std::vector<Cells>& cells, BadShards bad);

// What these data sets still lack for these layers.
std::vector<MissingCells> find_missing(const std::vector<DataSet>& data_sets, const std::vector<Cells>& cells,
                                       std::span<const int64_t> layers);

}  // namespace winnow
