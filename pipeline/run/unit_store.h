// Where a run keeps its finished units: one file each, complete or absent, in folders of the run directory. What is in
// the files is said by shards.h (scores) and texts.h (completions).
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace winnow::run {

class UnitStore {
 public:
  // Names RUN_DIR/shards: scores of cells, DATASET.eEXAMPLE.HASH.h5.
  static UnitStore shards(const std::filesystem::path& run_directory);
  // Names RUN_DIR/texts: completions, HASH.jsonl.
  static UnitStore texts(const std::filesystem::path& run_directory);

  const std::filesystem::path& folder() const { return folder_; }
  // Makes the folder where it is missing. Throws Error(kCannotCreate | kIoError).
  void make() const;
  // Returns the files that have a unit's name, in the order of their names; none where the folder is missing. Whatever
  // else is there, links too, is somebody else's. Throws Error(kIoError).
  std::vector<std::filesystem::path> files() const;

  using Use = std::function<void(const std::filesystem::path& file)>;
  using Refuse = std::function<void(const std::filesystem::path& file, const std::string& reason)>;
  // Hands every file to `use`, and those for which it throws Error(kBadData | kNoInput) to `refuse`: a damaged unit
  // is computed again, it does not end a run. Other errors pass through.
  void read_all(const Use& use, const Refuse& refuse) const;

 private:
  UnitStore(std::filesystem::path folder, bool (*is_unit_name)(const std::string&))
      : folder_(std::move(folder)), is_unit_name_(is_unit_name) {}

  std::filesystem::path folder_;
  bool (*is_unit_name_)(const std::string&);
};

// Returns all that a run directory can have.
std::array<UnitStore, 2> unit_stores(const std::filesystem::path& run_directory);

// Renames a unit that cannot be used to FILE.bad (FILE.2.bad ... when that exists) and returns the new name. Throws
// Error(kIoError).
std::filesystem::path set_unit_aside(const std::filesystem::path& file);

// Makes a folder and those that it lies in. Throws Error(kCannotCreate | kIoError) with the advice.
void make_run_folder(const std::filesystem::path& path);

}  // namespace winnow::run
