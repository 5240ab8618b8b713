// HDF5 in small checked classes: every status is looked at, HDF5's own deepest message goes into the exception, and a
// dataset is read only when it has exactly the element type and rank that the caller declares.
//
// A new file is built in memory (HDF5's core driver) and put on the disk by File::commit in one atomic step. So a
// full disk is met by our own write(), which can report it and clean up, and never by a flush inside HDF5's close. What
// winnow writes is small (at most some hundred MB with --per-token).
//
// A file is read in a process of its own (results/storage/hdf5_reader.h says why), and only what lies in it: no links,
// virtual datasets or external storage. Every program that reads begins with serve_if_asked.
//
// HDF5 is not thread-safe: one thread at a time for everything in this header.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace winnow::storage {

// An HDF5 id (hid_t) with one owner. Move only; the destructor never throws.
class Handle {
 public:
  using Close = int (*)(int64_t);

  Handle() = default;
  Handle(int64_t id, Close closer) : id_(id), close_(closer) {}
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  ~Handle();
  int64_t get() const { return id_; }
  int close();  // now, with HDF5's status; 0 when nothing is open

 private:
  int64_t id_ = -1;
  Close close_ = nullptr;
};

// Values of a dataset, row-major. A scalar has an empty shape and one value.
template <typename T>
struct Array {
  std::vector<int64_t> shape;
  std::vector<T> values;
};

enum class Type { kFloat64, kFloat32, kInt64, kInt32, kUint8, kString, kOther };
const char* type_name(Type type);

class Reader;

// A group of a file. T below is one of double, float, int64_t, int32_t, uint8_t, std::string (UTF-8, variable length).
// Names are single link names, except that a reader may pass a path ("control/short").
// Errors: writing throws Error(kIoError); reading throws Error(kBadData) that names file, dataset, expected and found,
// or Error(kIoError) where the operating system failed. Links, virtual datasets, external storage, missing filters, and
// chunks that are missing or too short are refused: Error(kBadData).
class Group {
 public:
  // ---- writing -----------------------------------------------------------------------------------------------------
  Group create_group(const std::string& name);
  // Writes a dataset of that shape (empty: a scalar). Large numeric ones are chunked, shuffled and deflated.
  template <typename T>
  void write(const std::string& name, std::span<const T> values, const std::vector<int64_t>& shape);
  template <typename T>
  void write_scalar(const std::string& name, const T& value);
  // Sets a scalar attribute of a member, or of the group itself where `object` is ".".
  template <typename T>
  void set_attribute(const std::string& object, const std::string& attribute, const T& value);
  // Makes the 1-D dataset `name` the scale (netCDF: coordinate variable) of the dimension of its own name.
  void make_scale(const std::string& name);
  // Makes a netCDF dimension without coordinate variable: a placeholder dataset that netCDF readers hide.
  void make_dimension(const std::string& name, int64_t length);
  // Says that axis `axis` of `dataset` runs along the scale or dimension `scale` of the same group.
  void attach_scale(const std::string& dataset, int64_t axis, const std::string& scale);

  // ---- reading -----------------------------------------------------------------------------------------------------
  bool contains(const std::string& name) const;
  bool contains_group(const std::string& name) const;
  std::vector<std::string> names() const;      // of all members, in order of creation where the file has it
  Group group(const std::string& name) const;  // must exist and be a group
  Type type(const std::string& name) const;    // of a dataset
  std::vector<int64_t> shape(const std::string& name) const;
  // Reads the whole dataset, which must have that element type (class, size and sign; either byte order) and that rank.
  // Strings may be of fixed or variable length and must be UTF-8.
  template <typename T>
  Array<T> read(const std::string& name, int64_t rank) const;
  template <typename T>
  T read_scalar(const std::string& name) const;
  // Returns a string attribute; none where it is absent. Throws Error(kBadData) for one that is not a scalar (or array
  // of one) string.
  std::optional<std::string> string_attribute(const std::string& object, const std::string& attribute) const;
  // Does the same for an integer of any size.
  std::optional<int64_t> integer_attribute(const std::string& object, const std::string& attribute) const;

  // Returns "FILE: /path/of/group/name", for messages.
  std::string where(const std::string& name) const;

 private:
  friend class File;
  Group(std::shared_ptr<const std::string> origin, std::string path, Handle handle, std::shared_ptr<Reader> reader)
      : origin_(std::move(origin)), path_(std::move(path)), handle_(std::move(handle)), reader_(std::move(reader)) {}
  std::string path_of(const std::string& name) const;
  Reader& reader() const;

  std::shared_ptr<const std::string> origin_;  // the file's name
  std::string path_;                           // "/control/short"
  Handle handle_;                              // in a created file
  std::shared_ptr<Reader> reader_;             // of an existing one
};

struct MemoryImage;

class File {
 public:
  // Creates a file that will be at `path`; nothing is on the disk before commit().
  static File create(const std::filesystem::path& path);
  // Opens an existing file, read-only and without file locks (many cluster file systems have none). Throws
  // Error(kNoInput) when it is missing, unreadable, or a directory, pipe or device, Error(kBadData) when it is empty,
  // damaged or not HDF5: one that differs from its checksum (base/checksum.h) is refused before anything in it is read.
  static File open(const std::filesystem::path& path);

  Group root() const;
  // Writes a created file to the disk, with its checksum: whole, synced, under its final name (base/atomic_file.h). Its
  // groups are of no use afterwards. Throws Error(kIoError | kCannotCreate), and may then be repeated. A file that is
  // not committed is dropped.
  void commit();
  const std::filesystem::path& path() const { return path_; }
  // Returns true if the file has a checksum, which then has been found right.
  bool has_checksum() const { return has_checksum_; }

 private:
  File(std::filesystem::path path, std::shared_ptr<MemoryImage> image, Handle handle, std::shared_ptr<Reader> reader,
       bool has_checksum);

  std::filesystem::path path_;
  std::shared_ptr<const std::string> origin_;
  std::shared_ptr<MemoryImage> image_;  // of a created file; outlives the handle, whose close fills it
  Handle handle_;
  std::shared_ptr<Reader> reader_;  // of an existing one
  bool has_checksum_ = false;
};

// Returns the root attribute `format_version`. Throws Error(kBadData) for a file whose `format` is another, or whose
// version is not from `first` to `version`; without `first`, `version` alone.
int64_t require_format(const File& file, const std::string& format, int64_t version,
                       std::optional<int64_t> first = std::nullopt);

}  // namespace winnow::storage
