// Reads an HDF5 file with the HDF5 library itself. Only the reader process (results/storage/hdf5_reader.h) does: a
// damaged file may break the library down. What the library would pass over in silence is refused here:
//
// - Bytes of other files. Links to other files, soft and user-defined links, virtual datasets and external storage are
//   no part of the file whose hash stands for it.
// - Chunks that are missing, or shorter than their shape: HDF5 1.10 fills in zeros, and reads beyond the chunk's end.
// - Filters that the library lacks, which it calls a directory that cannot be opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "results/storage/hdf5.h"

namespace winnow::storage {

enum class Kind : uint8_t { kNothing, kGroup, kDataset, kOther };

class LibraryFile {
 public:
  // Values of some rows of a dataset, as the caller's type has them in memory.
  using TakeRows = std::function<void(std::span<const std::byte>)>;

  // Opens a file. path: absolute. origin: the name of the file in messages. Throws as File::open of
  // results/storage/hdf5.h.
  LibraryFile(const std::string& path, std::string origin);

  uint64_t size_bytes() const { return file_bytes_; }

  // Methods take paths that begin with '/', and throw as those of Group in results/storage/hdf5.h.
  Kind kind(const std::string& path) const;
  std::vector<std::string> names(const std::string& path) const;
  Type type(const std::string& path) const;
  std::vector<int64_t> shape(const std::string& path) const;
  // Returns the shape of a dataset that must be of that type and rank, and no larger than the file can hold.
  std::vector<int64_t> expect(const std::string& path, Type type, int64_t rank) const;
  // Reads all values of such a dataset, in order, some rows of the first axis at a time. Not for strings.
  void read(const std::string& path, Type type, const TakeRows& take) const;
  std::vector<std::string> strings(const std::string& path) const;
  std::optional<std::string> string_attribute(const std::string& path, const std::string& attribute) const;
  std::optional<int64_t> integer_attribute(const std::string& path, const std::string& attribute) const;

 private:
  Handle find(const std::string& path) const;
  Handle open(const std::string& path) const;
  Handle open_dataset(const std::string& path) const;
  std::string where(const std::string& path) const { return origin_ + ": " + path; }

  std::string origin_;
  Handle file_;
  uint64_t file_bytes_ = 0;
};

}  // namespace winnow::storage
