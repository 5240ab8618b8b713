// Reads the values of one dataset, in chunks or in one piece, and checks every length. Private to the reader process
// (results/storage/hdf5_library.h).
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "results/storage/hdf5.h"

namespace winnow::storage {

// Throws Error(kBadData) for a dataset whose bytes lie in other files.
void refuse_foreign_bytes(hid_t dataset, const std::string& where);

// Throws Error(kBadData) with the filter's name for a compression that this HDF5 library cannot undo.
void refuse_missing_filters(hid_t dataset, const std::string& where);

class Rows {
 public:
  // Looks at a dataset. memory: the HDF5 type that values are wanted in; none: they are only checked, as elements of
  // element_bytes.
  Rows(hid_t dataset, std::vector<int64_t> shape, std::optional<hid_t> memory, std::size_t element_bytes,
       uint64_t file_bytes, std::string where);

  // Throws Error(kBadData) for a shape that the file cannot hold (a damaged header may claim terabytes), and for bytes
  // beyond its end.
  void check_claim() const;
  // Calls `take` with the values of some rows after others; without a memory type with no values, after a check of each
  // chunk. Throws Error(kBadData | kIoError).
  void read(const std::function<void(std::span<const std::byte>)>& take);

 private:
  struct Scratch;

  bool is_chunked() const { return !chunk_.empty(); }
  hsize_t rows_at_a_time() const;
  void read_row_by_row(hsize_t begin, hsize_t n_rows, std::vector<std::byte>& values) const;
  void read_chunks(hsize_t begin, hsize_t n_rows, std::vector<std::byte>& values);
  void read_chunk(const std::vector<hsize_t>& offset, hsize_t first_row, hsize_t n_rows,
                  std::vector<std::byte>& values);
  void make_scratch(uint32_t skipped);
  std::string at_chunk(const std::vector<hsize_t>& offset) const;

  hid_t dataset_;
  std::vector<hsize_t> shape_;  // at least one axis; a scalar is [1]
  std::optional<hid_t> memory_;
  std::size_t element_bytes_;  // in memory, or where values are only looked at, in the file
  std::size_t stored_bytes_;   // of an element in the file
  uint64_t file_bytes_;
  std::string where_;
  Handle properties_;
  std::vector<hsize_t> chunk_;  // its extents; empty where the dataset has no chunks
  bool is_scalar_ = false;
  std::vector<std::byte> raw_;  // of one chunk, as the file has it
  std::shared_ptr<Scratch> scratch_;
};

}  // namespace winnow::storage
