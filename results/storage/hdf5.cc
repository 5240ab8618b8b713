#include "results/storage/hdf5.h"

#include <hdf5_hl.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <utility>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "results/storage/hdf5_check.h"

namespace winnow::storage {
namespace {

constexpr int64_t kCompressFromBytes = 64 << 10;  // smaller datasets cost more in filter bookkeeping than they save
constexpr int64_t kMaxChunkBytes = 1 << 20;       // HDF5's default chunk cache
constexpr unsigned kDeflateLevel = 4;

// HDF5 prints its stack to stderr unless told not to; the setting is per thread in thread-safe builds.
void silence_error_stack() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

std::vector<hsize_t> extents(const std::vector<int64_t>& shape) { return {shape.begin(), shape.end()}; }

Handle dataspace(const std::vector<int64_t>& shape, const std::string& where) {
  const std::vector<hsize_t> dims = extents(shape);
  const hid_t id =
      shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  check_write(id, where, "create the dataspace");
  return Handle(id, H5Sclose);
}

// Creation properties: no time stamps, so that equal results are equal files.
Handle dataset_properties(const std::vector<int64_t>& shape, int64_t element_bytes, const std::string& where) {
  Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  check_write(properties.get(), where, "create the properties");
  check_write(H5Pset_obj_track_times(properties.get(), false), where, "set the properties");
  check_write(H5Pset_attr_creation_order(properties.get(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED), where,
              "set the properties");
  int64_t n_bytes = element_bytes;
  for (const int64_t extent : shape) n_bytes *= extent;
  if (n_bytes < kCompressFromBytes || H5Zfilter_avail(H5Z_FILTER_DEFLATE) <= 0) return properties;
  std::vector<hsize_t> chunk = extents(shape);
  for (std::size_t axis = 0; axis < chunk.size(); ++axis) {
    while (n_bytes > kMaxChunkBytes && chunk[axis] > 1) {
      n_bytes = n_bytes / static_cast<int64_t>(chunk[axis]) * static_cast<int64_t>((chunk[axis] + 1) / 2);
      chunk[axis] = (chunk[axis] + 1) / 2;
    }
  }
  check_write(H5Pset_chunk(properties.get(), static_cast<int>(chunk.size()), chunk.data()), where, "set the chunks");
  check_write(H5Pset_shuffle(properties.get()), where, "set the filter");
  check_write(H5Pset_deflate(properties.get(), kDeflateLevel), where, "set the filter");
  return properties;
}

std::vector<const char*> pointers(std::span<const std::string> values) {
  std::vector<const char*> result;
  result.reserve(values.size());
  for (const std::string& value : values) result.push_back(value.c_str());
  return result;
}

}  // namespace

const char* type_name(Type type) {
  switch (type) {
    case Type::kFloat64:
      return "float64";
    case Type::kFloat32:
      return "float32";
    case Type::kInt64:
      return "int64";
    case Type::kInt32:
      return "int32";
    case Type::kUint8:
      return "uint8";
    case Type::kString:
      return "string";
    case Type::kOther:
      break;
  }
  return "another type";
}

// ---- Handle ---------------------------------------------------------------------------------------------------------

Handle::Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(close_, other.close_);
  return *this;
}

Handle::~Handle() {
  // The status has nowhere to go here; where a close can lose something, File::commit calls close() and looks at it.
  close();
}

int Handle::close() {
  if (id_ < 0) return 0;
  return close_(std::exchange(id_, -1));
}

// ---- Group: writing -------------------------------------------------------------------------------------------------

std::string Group::path_of(const std::string& name) const {
  return name == "." ? path_ : path_ + (path_.back() == '/' ? "" : "/") + name;
}

std::string Group::where(const std::string& name) const { return *origin_ + ": " + path_of(name); }

Group Group::create_group(const std::string& name) {
  const Handle properties(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  check_write(properties.get(), where(name), "create the properties");
  check_write(H5Pset_obj_track_times(properties.get(), false), where(name), "set the properties");
  check_write(H5Pset_link_creation_order(properties.get(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED), where(name),
              "set the properties");
  Handle handle(H5Gcreate2(handle_.get(), name.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Gclose);
  check_write(handle.get(), where(name), "create the group");
  return Group(origin_, path_of(name), std::move(handle), nullptr);
}

template <typename T>
void Group::write(const std::string& name, std::span<const T> values, const std::vector<int64_t>& shape) {
  const std::string at = where(name);
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  if (count != static_cast<int64_t>(values.size())) {
    fail(ExitCode::kInternal, at + ": the shape holds " + std::to_string(count) + " elements, but " +
                                  std::to_string(values.size()) + " are given");
  }
  const Handle space = dataspace(shape, at);
  constexpr bool kIsString = std::is_same_v<T, std::string>;
  const Handle string_type = kIsString ? variable_string_type(H5T_CSET_UTF8) : Handle();
  const auto element_bytes = kIsString ? int64_t{0} : static_cast<int64_t>(sizeof(T));
  const Handle properties = dataset_properties(shape, element_bytes, at);
  hid_t in_file = string_type.get();
  if constexpr (!kIsString) in_file = file_type<T>();
  const Handle dataset(
      H5Dcreate2(handle_.get(), name.c_str(), in_file, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
  check_write(dataset.get(), at, "create the dataset");
  if (count == 0) return;
  if constexpr (kIsString) {
    const std::vector<const char*> data = pointers(values);
    check_write(H5Dwrite(dataset.get(), in_file, H5S_ALL, H5S_ALL, H5P_DEFAULT, data.data()), at, "write the dataset");
  } else {
    check_write(H5Dwrite(dataset.get(), memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), at,
                "write the dataset");
  }
}

template <typename T>
void Group::write_scalar(const std::string& name, const T& value) {
  write(name, std::span<const T>(&value, 1), {});
}

template <typename T>
void Group::set_attribute(const std::string& object, const std::string& attribute, const T& value) {
  const std::string at = where(object) + " attribute " + attribute;
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  check_write(space.get(), at, "create the dataspace");
  constexpr bool kIsString = std::is_same_v<T, std::string>;
  const Handle string_type = kIsString ? variable_string_type(H5T_CSET_UTF8) : Handle();
  hid_t in_file = string_type.get();
  if constexpr (!kIsString) in_file = file_type<T>();
  const Handle handle(H5Acreate_by_name(handle_.get(), object.c_str(), attribute.c_str(), in_file, space.get(),
                                        H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Aclose);
  check_write(handle.get(), at, "create the attribute");
  if constexpr (kIsString) {
    const char* data = value.c_str();
    check_write(H5Awrite(handle.get(), in_file, &data), at, "write the attribute");
  } else {
    check_write(H5Awrite(handle.get(), memory_type<T>(), &value), at, "write the attribute");
  }
}

void Group::make_scale(const std::string& name) {
  const Handle dataset(H5Dopen2(handle_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  check_write(dataset.get(), where(name), "open the dataset");
  check_write(H5DSset_scale(dataset.get(), name.c_str()), where(name), "make the dimension scale");
}

void Group::make_dimension(const std::string& name, int64_t length) {
  const std::string at = where(name);
  const Handle space = dataspace({length}, at);
  const Handle properties = dataset_properties({length}, 0, at);
  const Handle dataset(
      H5Dcreate2(handle_.get(), name.c_str(), H5T_IEEE_F32BE, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
  check_write(dataset.get(), at, "create the dimension");
  // The very words by which netCDF-4 knows a dimension that has no variable; the length has ten places.
  char label[80];
  std::snprintf(label, sizeof(label), "This is a netCDF dimension but not a netCDF variable.%10lld",
                static_cast<long long>(length));
  check_write(H5DSset_scale(dataset.get(), label), at, "make the dimension");
}

void Group::attach_scale(const std::string& dataset, int64_t axis, const std::string& scale) {
  const std::string at = where(dataset);
  const Handle data(H5Dopen2(handle_.get(), dataset.c_str(), H5P_DEFAULT), H5Dclose);
  check_write(data.get(), at, "open the dataset");
  const Handle along(H5Dopen2(handle_.get(), scale.c_str(), H5P_DEFAULT), H5Dclose);
  check_write(along.get(), where(scale), "open the dimension scale");
  check_write(H5DSattach_scale(data.get(), along.get(), static_cast<unsigned>(axis)), at, "attach the dimension scale");
}

// ---- File -----------------------------------------------------------------------------------------------------------

// The bytes of a created file, taken from the core driver when the file is closed: only then are they complete.
// H5Fget_file_image is no way to them: in HDF5 1.10.8 it clears a flag in the superblock's copy and leaves the
// superblock's checksum stale, and such a file does not open. (The oldest format has no such checksum, but there 1.10.8
// crashed on a damaged byte.)
struct MemoryImage {
  MemoryImage() = default;
  MemoryImage(const MemoryImage&) = delete;
  MemoryImage& operator=(const MemoryImage&) = delete;
  ~MemoryImage() { H5free_memory(data); }

  void* data = nullptr;
};

namespace {

herr_t keep_image(void* memory, H5FD_file_image_op_t op, void* image) {
  if (op == H5FD_FILE_IMAGE_OP_FILE_CLOSE) {
    static_cast<MemoryImage*>(image)->data = memory;
    return 0;
  }
  return H5free_memory(memory);
}

void* same_image(void* image) { return image; }

herr_t release_nothing(void*) { return 0; }

// The file in a memory image that HDF5 has allocated in larger steps, with its checksum behind it.
std::span<const std::byte> file_with_checksum(MemoryImage& image) {
  const auto* bytes = static_cast<const std::byte*>(image.data);
  const auto size =
      static_cast<std::size_t>(hdf5_end(std::span<const std::byte, kSuperblockBytes>(bytes, kSuperblockBytes)));
  if (size == 0) fail(ExitCode::kInternal, "HDF5 has made a file whose superblock is of no known version");
  const std::string checksum = hdf5_checksum({bytes, size});
  void* longer = H5resize_memory(image.data, size + checksum.size());
  if (longer == nullptr) fail(ExitCode::kOutOfMemory, "no memory for the file that is to be written");
  image.data = longer;
  std::memcpy(static_cast<std::byte*>(longer) + size, checksum.data(), checksum.size());
  return {static_cast<const std::byte*>(longer), size + checksum.size()};
}

}  // namespace

File::File(std::filesystem::path path, std::shared_ptr<MemoryImage> image, Handle handle,
           std::shared_ptr<Reader> reader, bool has_checksum)
    : path_(std::move(path)),
      origin_(std::make_shared<const std::string>(path_.string())),
      image_(std::move(image)),
      handle_(std::move(handle)),
      reader_(std::move(reader)),
      has_checksum_(has_checksum) {}

File File::create(const std::filesystem::path& path) {
  silence_error_stack();
  constexpr std::size_t kGrowBytes = std::size_t{1} << 20;
  const std::string at = path.string();
  auto image = std::make_shared<MemoryImage>();
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  check_write(access.get(), at, "create the properties");
  check_write(H5Pset_fapl_core(access.get(), kGrowBytes, false), at, "choose the memory driver");
  H5FD_file_image_callbacks_t callbacks = {};
  callbacks.image_free = keep_image;
  callbacks.udata_copy = same_image;
  callbacks.udata_free = release_nothing;
  callbacks.udata = image.get();
  check_write(H5Pset_file_image_callbacks(access.get(), &callbacks), at, "choose the memory driver");
  // The 1.8 format is what netCDF-4 writes: every reader knows it, and its metadata has checksums.
  check_write(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_LATEST), at, "choose the file format");
  check_write(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), at, "set the properties");
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  check_write(creation.get(), at, "create the properties");
  check_write(H5Pset_link_creation_order(creation.get(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED), at,
              "set the properties");
  check_write(H5Pset_obj_track_times(creation.get(), false), at, "set the properties");
  // The core driver tells files apart by name alone, and two new files may be meant for one path.
  static std::atomic<int64_t> n_created = 0;
  const std::string name = at + "#" + std::to_string(n_created++);
  Handle file(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose);
  check_write(file.get(), at, "create the file in memory");
  return File(path, std::move(image), std::move(file), nullptr, true);
}

Group File::root() const {
  if (reader_ != nullptr) return Group(origin_, "/", Handle(), reader_);
  Handle handle(H5Gopen2(handle_.get(), "/", H5P_DEFAULT), H5Gclose);
  check_write(handle.get(), *origin_, "open the root group");
  return Group(origin_, "/", std::move(handle), nullptr);
}

void File::commit() {
  if (image_ == nullptr) fail(ExitCode::kInternal, *origin_ + ": was opened for reading");
  check_write(handle_.close(), *origin_, "complete the file");
  write_file_atomically(path_, file_with_checksum(*image_));
}

int64_t require_format(const File& file, const std::string& format, int64_t version, std::optional<int64_t> first) {
  const Group root = file.root();
  const std::string at = file.path().string();
  const std::optional<std::string> found = root.string_attribute(".", "format");
  if (found != format) {
    fail(ExitCode::kBadData,
         at + ": attribute format: expected \"" + format + "\", found " + (found ? "\"" + *found + "\"" : "none"));
  }
  const std::optional<int64_t> found_version = root.integer_attribute(".", "format_version");
  if (!found_version || *found_version > version || *found_version < first.value_or(version)) {
    const std::string expected = (first ? std::to_string(*first) + " to " : "") + std::to_string(version);
    fail(ExitCode::kBadData, at + ": attribute format_version: expected " + expected + ", found " +
                                 (found_version ? std::to_string(*found_version) : "none") +
                                 "; use the winnow that wrote it, or write it anew");
  }
  return *found_version;
}

#define WINNOW_INSTANTIATE(T)                                                                         \
  template void Group::write<T>(const std::string&, std::span<const T>, const std::vector<int64_t>&); \
  template void Group::write_scalar<T>(const std::string&, const T&);                                 \
  template void Group::set_attribute<T>(const std::string&, const std::string&, const T&);
WINNOW_INSTANTIATE(double)
WINNOW_INSTANTIATE(float)
WINNOW_INSTANTIATE(int64_t)
WINNOW_INSTANTIATE(int32_t)
WINNOW_INSTANTIATE(uint8_t)
WINNOW_INSTANTIATE(std::string)
#undef WINNOW_INSTANTIATE

}  // namespace winnow::storage
