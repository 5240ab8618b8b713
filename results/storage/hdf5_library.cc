#include "results/storage/hdf5_library.h"

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "results/storage/hdf5_check.h"
#include "results/storage/hdf5_rows.h"

namespace winnow::storage {
namespace {

Type classify(hid_t type) {
  const std::size_t n_bytes = H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return n_bytes == 8 ? Type::kFloat64 : n_bytes == 4 ? Type::kFloat32 : Type::kOther;
    case H5T_INTEGER:
      if (H5Tget_sign(type) == H5T_SGN_NONE) return n_bytes == 1 ? Type::kUint8 : Type::kOther;
      return n_bytes == 8 ? Type::kInt64 : n_bytes == 4 ? Type::kInt32 : Type::kOther;
    case H5T_STRING:
      return Type::kString;
    default:
      return Type::kOther;
  }
}

// In words, also for types that winnow does not read.
std::string describe(hid_t type) {
  const Type known = classify(type);
  if (known != Type::kOther) return type_name(known);
  const std::string bits = std::to_string(8 * H5Tget_size(type));
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return "float" + bits;
    case H5T_INTEGER:
      return (H5Tget_sign(type) == H5T_SGN_NONE ? "uint" : "int") + bits;
    case H5T_ENUM:
      return "an enumeration or bool";
    case H5T_COMPOUND:
      return "a compound";
    case H5T_REFERENCE:
      return "a reference";
    default:
      return "another type";
  }
}

std::string describe(const std::vector<int64_t>& shape) {
  if (shape.empty()) return "a scalar";
  std::string text = "[";
  for (const int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

std::vector<int64_t> shape_of(hid_t space, const std::string& where) {
  // A null dataspace (no elements, not even one) has rank 0 like a scalar, but nothing to read.
  if (H5Sget_simple_extent_type(space) == H5S_NULL) fail(ExitCode::kBadData, where + ": is empty (null dataspace)");
  const int rank = H5Sget_simple_extent_ndims(space);
  check_read(rank, where, "read the shape");
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  check_read(H5Sget_simple_extent_dims(space, dims.data(), nullptr), where, "read the shape");
  return {dims.begin(), dims.end()};
}

void check_utf8(const std::vector<std::string>& values, const std::string& where) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!is_utf8(values[i])) fail(ExitCode::kBadData, where + "[" + std::to_string(i) + "]: is not UTF-8");
  }
}

// Strings as they lie in memory after a read with `type`, variable or fixed length.
template <typename Read>
std::vector<std::string> read_strings(hid_t file_type, hid_t space, std::size_t count, const std::string& where,
                                      Read read) {
  std::vector<std::string> values(count);
  if (H5Tis_variable_str(file_type) > 0) {
    const Handle type = variable_string_type(H5Tget_cset(file_type));
    std::vector<char*> data(count, nullptr);
    check_read(read(type.get(), data.data()), where, "read the strings");
    for (std::size_t i = 0; i < count; ++i) values[i] = data[i] != nullptr ? data[i] : "";
    H5Dvlen_reclaim(type.get(), space, H5P_DEFAULT, data.data());
  } else {
    const std::size_t n_bytes = H5Tget_size(file_type);
    std::vector<char> data(count * n_bytes);
    check_read(read(file_type, data.data()), where, "read the strings");
    for (std::size_t i = 0; i < count; ++i) {
      const std::string_view padded(data.data() + i * n_bytes, n_bytes);
      values[i] = padded.substr(0, padded.find('\0'));
    }
  }
  check_utf8(values, where);
  return values;
}

struct OpenAttribute {
  Handle attribute, type, space;
};

// nullopt when absent; otherwise an attribute of one element.
std::optional<OpenAttribute> open_attribute(hid_t object, const std::string& name, const std::string& where) {
  const htri_t exists = H5Aexists(object, name.c_str());
  check_read(exists, where, "look for the attribute");
  if (exists == 0) return std::nullopt;
  OpenAttribute open;
  open.attribute = Handle(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  check_read(open.attribute.get(), where, "open the attribute");
  open.type = Handle(H5Aget_type(open.attribute.get()), H5Tclose);
  check_read(open.type.get(), where, "read the type");
  open.space = Handle(H5Aget_space(open.attribute.get()), H5Sclose);
  check_read(open.space.get(), where, "read the shape");
  const std::vector<int64_t> shape = shape_of(open.space.get(), where);
  if (!shape.empty() && shape != std::vector<int64_t>{1}) {
    fail(ExitCode::kBadData, where + ": expected one value, found " + describe(shape));
  }
  return open;
}

// Of an element in the file. A string of variable length is there as its length and the place of its characters.
std::size_t stored_bytes(hid_t type) {
  constexpr std::size_t kLengthBytes = 4, kAddressBytes = 8, kIndexBytes = 4;
  return H5Tis_variable_str(type) > 0 ? kLengthBytes + kAddressBytes + kIndexBytes : H5Tget_size(type);
}

const char* link_words(H5L_type_t type) {
  switch (type) {
    case H5L_TYPE_SOFT:
      return "is a soft link; copy what it leads to in with h5copy -f soft";
    case H5L_TYPE_EXTERNAL:
      return "is a link to another file; copy what it leads to in with h5copy -f ext";
    default:
      return "is a link of a kind that winnow does not know; copy what it leads to in";
  }
}

// The number of elements; 0 where one extent is.
std::size_t count_of(const std::vector<int64_t>& shape) {
  std::size_t count = 1;
  for (const int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

hid_t memory_type_of(Type type) {
  switch (type) {
    case Type::kFloat64:
      return memory_type<double>();
    case Type::kFloat32:
      return memory_type<float>();
    case Type::kInt64:
      return memory_type<int64_t>();
    case Type::kInt32:
      return memory_type<int32_t>();
    case Type::kUint8:
      return memory_type<uint8_t>();
    default:
      fail(ExitCode::kInternal, std::string("no numbers in memory for ") + type_name(type));
  }
}

Handle type_of(hid_t dataset, const std::string& where) {
  Handle type(H5Dget_type(dataset), H5Tclose);
  check_read(type.get(), where, "read the type");
  return type;
}

Handle space_of(hid_t dataset, const std::string& where) {
  Handle space(H5Dget_space(dataset), H5Sclose);
  check_read(space.get(), where, "read the shape");
  return space;
}

herr_t keep_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

}  // namespace

LibraryFile::LibraryFile(const std::string& path, std::string origin) : origin_(std::move(origin)) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  file_bytes_ = std::filesystem::file_size(path);
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  check_read(access.get(), origin_, "create the properties");
#if H5_VERSION_GE(1, 10, 7)  // before, HDF5_USE_FILE_LOCKING says the same
  check_read(H5Pset_file_locking(access.get(), false, true), origin_, "set the properties");
#endif
  if (H5Fis_hdf5(path.c_str()) == 0) fail(ExitCode::kBadData, origin_ + ": is not an HDF5 file");
  file_ = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (file_.get() < 0 && !deepest_message().os_failure) {
    fail(ExitCode::kBadData, origin_ +
                                 ": is an HDF5 file that was cut short or damaged; copy it again, or repeat the "
                                 "command that wrote it");
  }
  check_read(file_.get(), origin_, "open the file");
}

// Link by link, so that no link is followed that leads elsewhere. Nothing is there: no handle.
Handle LibraryFile::find(const std::string& path) const {
  Handle object(H5Oopen(file_.get(), "/", H5P_DEFAULT), H5Oclose);
  check_read(object.get(), where("/"), "open the root group");
  std::istringstream parts(path);
  std::string walked;
  for (std::string part; std::getline(parts, part, '/');) {
    if (part.empty() || part == ".") continue;
    walked += "/" + part;
    if (H5Iget_type(object.get()) != H5I_GROUP) return {};
    const htri_t exists = H5Lexists(object.get(), part.c_str(), H5P_DEFAULT);
    check_read(exists, where(walked), "look for it");
    if (exists == 0) return {};
    H5L_info_t link{};
    check_read(H5Lget_info(object.get(), part.c_str(), &link, H5P_DEFAULT), where(walked), "look at the link");
    if (link.type != H5L_TYPE_HARD) {
      fail(ExitCode::kBadData,
           where(walked) + ": only what lies in the file itself is read, and this " + link_words(link.type));
    }
    Handle next(H5Oopen(object.get(), part.c_str(), H5P_DEFAULT), H5Oclose);
    check_read(next.get(), where(walked), "open the object");
    object = std::move(next);
  }
  return object;
}

Handle LibraryFile::open(const std::string& path) const {
  Handle object = find(path);
  if (object.get() < 0) fail(ExitCode::kBadData, where(path) + ": expected a group or dataset, found nothing");
  return object;
}

Handle LibraryFile::open_dataset(const std::string& path) const {
  Handle object = find(path);
  if (object.get() < 0) fail(ExitCode::kBadData, where(path) + ": expected a dataset, found nothing of that name");
  if (H5Iget_type(object.get()) != H5I_DATASET) {
    fail(ExitCode::kBadData, where(path) + ": expected a dataset, found a group or type");
  }
  refuse_foreign_bytes(object.get(), where(path));
  return object;
}

Kind LibraryFile::kind(const std::string& path) const {
  const Handle object = find(path);
  if (object.get() < 0) return Kind::kNothing;
  const H5I_type_t type = H5Iget_type(object.get());
  return type == H5I_GROUP ? Kind::kGroup : type == H5I_DATASET ? Kind::kDataset : Kind::kOther;
}

std::vector<std::string> LibraryFile::names(const std::string& path) const {
  const Handle group = open(path);
  unsigned order = 0;
  const Handle properties(H5Gget_create_plist(group.get()), H5Pclose);
  check_read(properties.get(), where(path), "read the group");
  check_read(H5Pget_link_creation_order(properties.get(), &order), where(path), "read the group");
  const H5_index_t index = (order & H5P_CRT_ORDER_INDEXED) != 0 ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  std::vector<std::string> result;
  check_read(H5Literate(group.get(), index, H5_ITER_INC, nullptr, keep_name, &result), where(path), "read the names");
  return result;
}

Type LibraryFile::type(const std::string& path) const {
  return classify(type_of(open_dataset(path).get(), where(path)).get());
}

std::vector<int64_t> LibraryFile::shape(const std::string& path) const {
  return shape_of(space_of(open_dataset(path).get(), where(path)).get(), where(path));
}

std::vector<int64_t> LibraryFile::expect(const std::string& path, Type expected, int64_t rank) const {
  const std::string at = where(path);
  const Handle dataset = open_dataset(path);
  const Handle type = type_of(dataset.get(), at);
  const std::vector<int64_t> shape = shape_of(space_of(dataset.get(), at).get(), at);
  if (classify(type.get()) != expected || static_cast<int64_t>(shape.size()) != rank) {
    fail(ExitCode::kBadData, at + ": expected " + type_name(expected) + " of rank " + std::to_string(rank) +
                                 ", found " + describe(type.get()) + " " + describe(shape));
  }
  if (std::ranges::count(shape, 0) > 0) return shape;
  refuse_missing_filters(dataset.get(), at);
  Rows(dataset.get(), shape, std::nullopt, stored_bytes(type.get()), file_bytes_, at).check_claim();
  return shape;
}

void LibraryFile::read(const std::string& path, Type type, const TakeRows& take) const {
  const Handle dataset = open_dataset(path);
  const std::vector<int64_t> shape = shape_of(space_of(dataset.get(), where(path)).get(), where(path));
  if (std::ranges::count(shape, 0) > 0) return;
  const hid_t memory = memory_type_of(type);
  Rows(dataset.get(), shape, memory, H5Tget_size(memory), file_bytes_, where(path)).read(take);
}

std::vector<std::string> LibraryFile::strings(const std::string& path) const {
  const std::string at = where(path);
  const Handle dataset = open_dataset(path);
  const Handle type = type_of(dataset.get(), at);
  const Handle space = space_of(dataset.get(), at);
  const std::vector<int64_t> shape = shape_of(space.get(), at);
  const std::size_t count = count_of(shape);
  if (count == 0) return {};
  if (H5Tis_variable_str(type.get()) > 0) {
    // What is stored is where in the file's heap the strings are, which means something in this file alone.
    Rows(dataset.get(), shape, std::nullopt, stored_bytes(type.get()), file_bytes_, at).read([](auto) {});
    return read_strings(type.get(), space.get(), count, at, [&](hid_t memory, void* data) {
      return H5Dread(dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    });
  }
  Rows rows(dataset.get(), shape, type.get(), H5Tget_size(type.get()), file_bytes_, at);
  return read_strings(type.get(), space.get(), count, at, [&](hid_t, void* data) {
    auto* next = static_cast<std::byte*>(data);
    rows.read([&](std::span<const std::byte> values) { next = std::copy(values.begin(), values.end(), next); });
    return 0;
  });
}

std::optional<std::string> LibraryFile::string_attribute(const std::string& path, const std::string& attribute) const {
  const std::string at = where(path) + " attribute " + attribute;
  const Handle owner = open(path);
  const std::optional<OpenAttribute> open = open_attribute(owner.get(), attribute, at);
  if (!open) return std::nullopt;
  if (H5Tget_class(open->type.get()) != H5T_STRING) {
    fail(ExitCode::kBadData, at + ": expected a string, found " + describe(open->type.get()));
  }
  return read_strings(open->type.get(), open->space.get(), 1, at,
                      [&](hid_t memory, void* data) { return H5Aread(open->attribute.get(), memory, data); })
      .front();
}

std::optional<int64_t> LibraryFile::integer_attribute(const std::string& path, const std::string& attribute) const {
  const std::string at = where(path) + " attribute " + attribute;
  const Handle owner = open(path);
  const std::optional<OpenAttribute> open = open_attribute(owner.get(), attribute, at);
  if (!open) return std::nullopt;
  if (H5Tget_class(open->type.get()) != H5T_INTEGER) {
    fail(ExitCode::kBadData, at + ": expected an integer, found " + describe(open->type.get()));
  }
  int64_t value = 0;
  check_read(H5Aread(open->attribute.get(), H5T_NATIVE_INT64, &value), at, "read the attribute");
  return value;
}

}  // namespace winnow::storage
