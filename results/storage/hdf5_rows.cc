#include "results/storage/hdf5_rows.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "results/storage/hdf5_check.h"

namespace winnow::storage {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{16} << 20;

// ---- the guard: a filter that looks at what all others have made of a chunk
// ------------------------------------------

constexpr H5Z_filter_t kGuard = 300;  // of the numbers that HDF5 leaves to tests, so no file's filter has it

// Of the last chunk, for the message. One thread reads, and the filter's own arguments go one way.
std::size_t guarded_bytes = 0;

// When a chunk is read, the first filter of its pipeline comes last.
std::size_t guard(unsigned flags, std::size_t n_values, const unsigned* values, std::size_t n_bytes, std::size_t*,
                  void**) {
  if ((flags & H5Z_FLAG_REVERSE) == 0) return n_bytes;
  guarded_bytes = n_bytes;
  return n_values == 1 && n_bytes == values[0] ? n_bytes : 0;
}

void register_guard() {
  H5Z_class2_t filter{};
  filter.version = H5Z_CLASS_T_VERS;
  filter.id = kGuard;
  filter.encoder_present = filter.decoder_present = 1;
  filter.name = "length of a chunk";
  filter.filter = guard;
  check_read(H5Zregister(&filter), "HDF5", "register a filter");
}

struct Filter {
  H5Z_filter_t id = 0;
  unsigned flags = 0;
  std::vector<unsigned> values;
  std::string name;
};

std::vector<Filter> filters_of(hid_t properties, const std::string& where) {
  const int n_filters = H5Pget_nfilters(properties);
  check_read(n_filters, where, "read the filters");
  std::vector<Filter> filters;
  for (int i = 0; i < n_filters; ++i) {
    Filter& filter = filters.emplace_back();
    std::size_t n_values = 0;
    std::array<char, 64> name{};
    filter.id = H5Pget_filter2(properties, static_cast<unsigned>(i), &filter.flags, &n_values, nullptr, name.size() - 1,
                               name.data(), nullptr);
    check_read(filter.id, where, "read the filters");
    filter.values.resize(n_values);
    check_read(H5Pget_filter2(properties, static_cast<unsigned>(i), &filter.flags, &n_values, filter.values.data(), 0,
                              nullptr, nullptr),
               where, "read the filters");
    filter.name = name.data();
  }
  return filters;
}

Handle properties_of(hid_t dataset, const std::string& where) {
  Handle properties(H5Dget_create_plist(dataset), H5Pclose);
  check_read(properties.get(), where, "read the properties");
  return properties;
}

[[noreturn]] void refuse_bytes_elsewhere(const std::string& where, const std::string& what) {
  fail(ExitCode::kBadData,
       where + ": only what lies in the file itself is read, and this " + what + "; copy it in with h5repack -l CONTI");
}

std::string shape_text(std::span<const hsize_t> shape) {
  std::string text = "[";
  for (const hsize_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

}  // namespace

void refuse_foreign_bytes(hid_t dataset, const std::string& where) {
  const Handle properties = properties_of(dataset, where);
  if (H5Pget_layout(properties.get()) == H5D_VIRTUAL) {
    refuse_bytes_elsewhere(where, "is a virtual dataset, whose values lie in others");
  }
  const int n_external = H5Pget_external_count(properties.get());
  check_read(n_external, where, "read the properties");
  if (n_external > 0) refuse_bytes_elsewhere(where, "has its values in another file");
}

void refuse_missing_filters(hid_t dataset, const std::string& where) {
  for (const Filter& filter : filters_of(properties_of(dataset, where).get(), where)) {
    unsigned abilities = 0;
    if (filter.id != kGuard && H5Zfilter_avail(filter.id) > 0 && H5Zget_filter_info(filter.id, &abilities) >= 0 &&
        (abilities & H5Z_FILTER_CONFIG_DECODE_ENABLED) != 0) {
      continue;
    }
    const std::string name =
        filter.name.empty() ? std::to_string(filter.id) : filter.name + " (number " + std::to_string(filter.id) + ")";
    fail(ExitCode::kBadData, where + ": is compressed with the filter " + name +
                                 ", which this HDF5 library lacks; write it with gzip or uncompressed (h5repack -f "
                                 "GZIP=4), or name the folder of the filter's plugin in HDF5_PLUGIN_PATH");
  }
}

// A dataset of one chunk in memory. Its filters are those of the file's dataset, with the guard before them: what is
// written there as a chunk of the file is read back decompressed, converted and of the right length, or not at all.
// HDF5 1.10 itself does not look at the length: it takes what lies in memory behind a short chunk for values.
struct Rows::Scratch {
  Handle file, dataset;
  uint32_t skipped = 0;  // of its filters; bit i: filter i is not there
};

Rows::Rows(hid_t dataset, std::vector<int64_t> shape, std::optional<hid_t> memory, std::size_t element_bytes,
           uint64_t file_bytes, std::string where)
    : dataset_(dataset),
      shape_(shape.begin(), shape.end()),
      memory_(memory),
      element_bytes_(element_bytes),
      stored_bytes_(element_bytes),
      file_bytes_(file_bytes),
      where_(std::move(where)),
      properties_(properties_of(dataset, where_)) {
  if (memory_) {
    const Handle type(H5Dget_type(dataset), H5Tclose);
    stored_bytes_ = H5Tget_size(type.get());
  }
  if (shape_.empty()) {
    is_scalar_ = true;
    shape_ = {1};
  }
  if (H5Pget_layout(properties_.get()) != H5D_CHUNKED) return;
  chunk_.resize(H5S_MAX_RANK);
  const int rank = H5Pget_chunk(properties_.get(), static_cast<int>(chunk_.size()), chunk_.data());
  check_read(rank, where_, "read the extents of its chunks");
  chunk_.resize(static_cast<std::size_t>(rank));
  if (chunk_.size() != shape_.size() || std::ranges::count(chunk_, hsize_t{0}) > 0) {
    fail(ExitCode::kBadData,
         where_ + ": has the shape " + shape_text(shape_) + ", but chunks of " + shape_text(chunk_));
  }
}

void Rows::check_claim() const {
  constexpr uint64_t kMaxDeflateRatio = 1032;
  const uint64_t stored = H5Dget_storage_size(dataset_);
  const uint64_t held = std::min(stored, file_bytes_);
  const uint64_t limit = is_chunked() && held < (uint64_t{1} << 50) ? held * kMaxDeflateRatio : held;
  uint64_t n_bytes = stored_bytes_;
  const auto exceeds = [&](std::span<const hsize_t> extents) {
    n_bytes = stored_bytes_;
    return std::ranges::any_of(extents, [&](hsize_t extent) {
      if (n_bytes > limit / extent) return true;
      n_bytes *= extent;
      return false;
    });
  };
  if (exceeds(shape_) || (is_chunked() && exceeds(chunk_))) {
    fail(ExitCode::kBadData, where_ + ": claims the shape " + (is_scalar_ ? "of a scalar" : shape_text(shape_)) +
                                 (is_chunked() ? " in chunks of " + shape_text(chunk_) : "") +
                                 ", but the file holds only " + std::to_string(held) + " bytes of it");
  }
  if (H5Pget_layout(properties_.get()) != H5D_CONTIGUOUS) return;
  const haddr_t begin = H5Dget_offset(dataset_);
  if (begin == HADDR_UNDEF || begin > file_bytes_ || n_bytes > file_bytes_ - begin) {
    fail(ExitCode::kBadData, where_ + ": its values lie beyond the end of the file");
  }
}

hsize_t Rows::rows_at_a_time() const {
  std::size_t row_bytes = element_bytes_;
  for (std::size_t axis = 1; axis < shape_.size(); ++axis) row_bytes *= shape_[axis];
  const hsize_t fitting = std::max<hsize_t>(1, kPieceBytes / row_bytes);
  // Whole chunks, so that none is decompressed twice.
  return is_chunked() ? std::max<hsize_t>(1, fitting / chunk_[0]) * chunk_[0] : fitting;
}

void Rows::read(const std::function<void(std::span<const std::byte>)>& take) {
  const std::size_t row_bytes =
      std::accumulate(shape_.begin() + 1, shape_.end(), element_bytes_, std::multiplies<std::size_t>());
  const hsize_t step = rows_at_a_time();
  std::vector<std::byte> values;
  for (hsize_t begin = 0; begin < shape_[0]; begin += step) {
    const hsize_t n_rows = std::min(step, shape_[0] - begin);
    if (memory_) values.resize(n_rows * row_bytes);
    if (is_chunked()) {
      read_chunks(begin, n_rows, values);
    } else if (memory_) {
      read_row_by_row(begin, n_rows, values);
    }
    take(values);
  }
}

void Rows::read_row_by_row(hsize_t begin, hsize_t n_rows, std::vector<std::byte>& values) const {
  Handle in_file, in_memory;
  if (!is_scalar_) {
    std::vector<hsize_t> start(shape_.size(), 0), count = shape_;
    start[0] = begin;
    count[0] = n_rows;
    in_file = Handle(H5Dget_space(dataset_), H5Sclose);
    check_read(H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), where_,
               "select rows");
    in_memory = Handle(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose);
  }
  check_read(H5Dread(dataset_, *memory_, is_scalar_ ? H5S_ALL : in_memory.get(), is_scalar_ ? H5S_ALL : in_file.get(),
                     H5P_DEFAULT, values.data()),
             where_, "read the dataset");
}

void Rows::read_chunks(hsize_t begin, hsize_t n_rows, std::vector<std::byte>& values) {
  std::vector<hsize_t> offset(shape_.size(), 0);
  for (offset[0] = begin; offset[0] < begin + n_rows;) {
    read_chunk(offset, begin, n_rows, values);
    // The next one, the last axis running fastest.
    for (std::size_t axis = offset.size(); axis-- > 0;) {
      offset[axis] += chunk_[axis];
      if (axis == 0 || offset[axis] < shape_[axis]) break;
      offset[axis] = 0;
    }
  }
}

std::string Rows::at_chunk(const std::vector<hsize_t>& offset) const {
  return where_ + ": its chunk at " + shape_text(offset);
}

void Rows::read_chunk(const std::vector<hsize_t>& offset, hsize_t first_row, hsize_t n_rows,
                      std::vector<std::byte>& values) {
  hsize_t stored = 0;
  if (H5Dget_chunk_storage_size(dataset_, offset.data(), &stored) < 0 || stored == 0)
    fail(ExitCode::kBadData, at_chunk(offset) + " is not in the file");
  if (stored > file_bytes_) fail(ExitCode::kBadData, at_chunk(offset) + " is longer than the file");
  raw_.resize(stored);
  uint32_t skipped = 0;
  check_read(H5Dread_chunk(dataset_, H5P_DEFAULT, offset.data(), &skipped, raw_.data()), at_chunk(offset), "read it");
  std::vector<hsize_t> start(offset.size(), 0), count = chunk_;
  bool is_at_edge = false;
  for (std::size_t axis = 0; axis < offset.size(); ++axis) {
    count[axis] = std::min(chunk_[axis], shape_[axis] - offset[axis]);
    if (count[axis] < chunk_[axis]) is_at_edge = true;
  }
  unsigned options = 0;
  check_read(H5Pget_chunk_opts(properties_.get(), &options), where_, "read the properties");
  // Filters that were left out when the chunk was written. H5Dwrite_chunk would take them, too, but 1.10.8 forgets
  // them.
  if (is_at_edge && (options & H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) != 0) skipped = ~uint32_t{0};
  if (scratch_ == nullptr || scratch_->skipped != skipped) make_scratch(skipped);
  const std::vector<hsize_t> origin(offset.size(), 0);
  check_read(H5Dwrite_chunk(scratch_->dataset.get(), H5P_DEFAULT, 0, origin.data(), raw_.size(), raw_.data()),
             at_chunk(offset), "hold it");
  const Handle in_chunk(H5Dget_space(scratch_->dataset.get()), H5Sclose);
  check_read(H5Sselect_hyperslab(in_chunk.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), where_,
             "select values");
  std::vector<hsize_t> piece = shape_;
  piece[0] = n_rows;
  std::vector<hsize_t> place = offset;
  place[0] -= first_row;
  if (!memory_) {  // only looked at: what it holds goes where nobody reads it
    piece = count;
    place = std::move(start);
    values.resize(std::accumulate(count.begin(), count.end(), element_bytes_, std::multiplies<std::size_t>()));
  }
  const Handle in_piece(H5Screate_simple(static_cast<int>(piece.size()), piece.data(), nullptr), H5Sclose);
  check_read(in_piece.get(), where_, "select values");
  check_read(H5Sselect_hyperslab(in_piece.get(), H5S_SELECT_SET, place.data(), nullptr, count.data(), nullptr), where_,
             "select values");
  const Handle type(H5Dget_type(scratch_->dataset.get()), H5Tclose);
  guarded_bytes = 0;
  const herr_t status = H5Dread(scratch_->dataset.get(), memory_.value_or(type.get()), in_piece.get(), in_chunk.get(),
                                H5P_DEFAULT, values.data());
  const auto expected = std::accumulate(chunk_.begin(), chunk_.end(), stored_bytes_, std::multiplies<std::size_t>());
  if (status < 0 && guarded_bytes != 0 && guarded_bytes != expected) {
    fail(ExitCode::kBadData,
         at_chunk(offset) + " holds " + std::to_string(guarded_bytes) + " bytes, expected " + std::to_string(expected));
  }
  check_read(status, at_chunk(offset), "decompress it");
}

void Rows::make_scratch(uint32_t skipped) {
  register_guard();
  scratch_ = std::make_shared<Scratch>();
  scratch_->skipped = skipped;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  check_read(H5Pset_fapl_core(access.get(), std::size_t{1} << 20, false), where_, "make room for a chunk");
  scratch_->file = Handle(H5Fcreate("chunk", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  check_read(scratch_->file.get(), where_, "make room for a chunk");
  // All properties of the dataset, such as the fill value, which some filters encode by. The guard goes before them.
  const Handle properties(H5Pcopy(properties_.get()), H5Pclose);
  const std::vector<Filter> filters = filters_of(properties.get(), where_);
  check_read(H5Pset_chunk_opts(properties.get(), 0), where_, "set the chunk");
  check_read(H5Pset_chunk(properties.get(), static_cast<int>(chunk_.size()), chunk_.data()), where_, "set the chunk");
  check_read(H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER), where_, "set the properties");
  if (!memory_) check_read(H5Pset_fill_value(properties.get(), H5T_OPAQUE, nullptr), where_, "set the properties");
  if (!filters.empty()) check_read(H5Premove_filter(properties.get(), H5Z_FILTER_ALL), where_, "set the filters");
  const auto chunk_bytes = std::accumulate(chunk_.begin(), chunk_.end(), stored_bytes_, std::multiplies<std::size_t>());
  const auto expected = static_cast<unsigned>(chunk_bytes);
  if (expected != chunk_bytes) fail(ExitCode::kBadData, where_ + ": has chunks of 4 GiB or more");
  check_read(H5Pset_filter(properties.get(), kGuard, H5Z_FLAG_MANDATORY, 1, &expected), where_, "set the filters");
  for (std::size_t i = 0; i < filters.size(); ++i) {
    if ((skipped >> i & 1) != 0) continue;
    check_read(H5Pset_filter(properties.get(), filters[i].id, filters[i].flags, filters[i].values.size(),
                             filters[i].values.data()),
               where_, "set the filters");
  }
  const Handle space(H5Screate_simple(static_cast<int>(chunk_.size()), chunk_.data(), nullptr), H5Sclose);
  check_read(space.get(), where_, "make room for a chunk");
  const Handle type =
      memory_ ? Handle(H5Dget_type(dataset_), H5Tclose) : Handle(H5Tcreate(H5T_OPAQUE, element_bytes_), H5Tclose);
  scratch_->dataset = Handle(
      H5Dcreate2(scratch_->file.get(), "chunk", type.get(), space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
  check_read(scratch_->dataset.get(), where_, "make room for a chunk");
}

}  // namespace winnow::storage
