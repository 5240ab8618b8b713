// The run directory of one measurement: lock, record, finished cells.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/output_path.h"
#include "pipeline/run/inputs.h"
#include "pipeline/run/run_identity.h"
#include "pipeline/run/score_table.h"
#include "pipeline/run/shards.h"
#include "pipeline/run/unit_store.h"
#include "pipeline/runtime/lock.h"

namespace winnow::run {

// Throws Error as check_outputs() does where `run_directory` or one of `others` may not be written, and Error(kUsage)
// where one of them or a file that is read lies in a folder that a run keeps for itself.
void check_run_outputs(const std::filesystem::path& run_directory, const std::vector<Output>& others,
                       const ReadPaths& read);

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
  std::unique_ptr<runtime::RunLock> lock_;
  RunRecord record_;
};

std::map<std::string, std::string> control_hashes(const std::vector<DataSet>& data_sets);

// Says what to do with a shard that cannot be used: set it aside, or leave it (a dry run changes nothing).
enum class BadShards { kSetAside, kLeave };
// Returns the number of a variant that a shard names, a new one where the variant is new. Throws Error(kBadData) for
// what does not name a pattern.
using NumberVariant = std::function<int64_t(const std::string& name)>;
// Puts the cells of all shards of this measurement into `cells` (one table per data set) and returns one line for each
// shard that cannot be used. Shards of controls that this command does not name are passed over in silence. With named
// variants the tables grow as `number` finds new ones.
std::vector<std::string> load_shards(const std::filesystem::path& run_directory, const std::string& measurement,
                                     const std::vector<DataSet>& data_sets, std::vector<ScoreTable>& cells,
                                     BadShards bad, const NumberVariant& number = {});

// Returns the cells that the wanted examples of these data sets still lack: of these variants, and of the base.
std::vector<MissingCells> find_missing(const std::vector<DataSet>& data_sets, const std::vector<ScoreTable>& cells,
                                       std::span<const int64_t> variants);

}  // namespace winnow::run
