// Reads a calibration file. The format is in results/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file_stamp.h"
#include "results/storage/hdf5.h"

namespace winnow::run {

struct Corpus {
  std::filesystem::path path;
  std::vector<int32_t> tokens;        // (total)
  std::vector<int64_t> offsets;       // (examples + 1)
  std::vector<int64_t> answer_start;  // (examples)
  std::vector<std::string> example_id;
  std::vector<std::string> source;  // empty, or (examples)
  // How a text is judged, (examples) each; empty in files of format_version 1.
  std::vector<std::string> task;
  std::vector<std::string> metric;
  std::vector<std::string> length_bin;
  std::string sha256;  // of the file's bytes, hex
  // Stamp of the file when its content was last known to be this. It is mutable, as another date of the same content is
  // not a change.
  mutable std::optional<FileStamp> stamp;

  int64_t size() const { return static_cast<int64_t>(answer_start.size()); }
  std::span<const int32_t> example(int64_t e) const {
    return std::span<const int32_t>(tokens).subspan(static_cast<std::size_t>(offsets[e]),
                                                    static_cast<std::size_t>(offsets[e + 1] - offsets[e]));
  }
  // Returns 16 hexadecimal digits that tell its tokens from those of other examples, whatever file they are in.
  std::string token_hash(int64_t e) const;
  // Returns "example 3 (id "a7")", for messages.
  std::string name_of(int64_t e) const;
};

// Returns the file's format_version, 1 or 2. Throws Error(kBadData) for a file that is no calibration file.
int64_t require_calibration_format(const storage::File& file);

// Reads and validates a file. Throws Error(kNoInput | kBadData) naming file, example and value. `vocab` bounds token
// ids.
Corpus read_corpus(const std::filesystem::path& path, int64_t vocab);

// Throws Error(kBadData) where the file has other content by now, since the result would name a file that was not
// measured. A file that is gone has not changed. It looks at the file's status, and hashes the file where that differs.
void check_unchanged(const Corpus& corpus);

}  // namespace winnow::run
