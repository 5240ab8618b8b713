#include <algorithm>
#include <string_view>
#include <utility>

#include "kernels/error.h"
#include "results/hdf5.h"
#include "results/hdf5_check.h"
#include "results/utf8.h"

namespace winnow::hdf5 {
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

// Number of elements, after a look at whether the file can hold them: a damaged header may claim terabytes.
std::size_t checked_count(hid_t dataset, const std::vector<int64_t>& shape, std::size_t element_bytes,
                          const std::string& where) {
  constexpr uint64_t kMaxDeflateRatio = 1032;
  const uint64_t storage = H5Dget_storage_size(dataset);
  const uint64_t limit = storage > (uint64_t{1} << 50) ? storage : storage * kMaxDeflateRatio;
  uint64_t n_bytes = element_bytes;
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (const int64_t extent : shape) {
    if (extent < 0 || n_bytes > limit / static_cast<uint64_t>(extent)) {
      fail(ExitCode::kBadData, where + ": claims the shape " + describe(shape) + ", but the file holds only " +
                                   std::to_string(storage) + " bytes of it");
    }
    n_bytes *= static_cast<uint64_t>(extent);
  }
  return static_cast<std::size_t>(n_bytes / element_bytes);
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

bool Group::contains(const std::string& name) const {
  // H5Lexists needs every part of a path but the last to exist.
  for (std::size_t end = name.find('/');; end = name.find('/', end + 1)) {
    const std::string part = name.substr(0, end);
    if (!part.empty()) {
      if (H5Lexists(handle_.get(), part.c_str(), H5P_DEFAULT) <= 0) return false;
      if (H5Oexists_by_name(handle_.get(), part.c_str(), H5P_DEFAULT) <= 0) return false;
    }
    if (end == std::string::npos) return true;
  }
}

bool Group::contains_group(const std::string& name) const {
  return contains(name) && H5Iget_type(open_object(name).get()) == H5I_GROUP;
}

std::vector<std::string> Group::names() const {
  H5G_info_t info;
  check_read(H5Gget_info(handle_.get(), &info), where("."), "read the group");
  unsigned order = 0;
  const Handle properties(H5Gget_create_plist(handle_.get()), H5Pclose);
  check_read(properties.get(), where("."), "read the group");
  check_read(H5Pget_link_creation_order(properties.get(), &order), where("."), "read the group");
  const H5_index_t index = (order & H5P_CRT_ORDER_INDEXED) != 0 ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  std::vector<std::string> result;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const ssize_t length = H5Lget_name_by_idx(handle_.get(), ".", index, H5_ITER_INC, i, nullptr, 0, H5P_DEFAULT);
    check_read(length, where("."), "read the names");
    std::string name(static_cast<std::size_t>(length) + 1, '\0');
    check_read(H5Lget_name_by_idx(handle_.get(), ".", index, H5_ITER_INC, i, name.data(), name.size(), H5P_DEFAULT),
               where("."), "read the names");
    name.pop_back();
    result.push_back(std::move(name));
  }
  return result;
}

Handle Group::open_object(const std::string& name) const {
  Handle object(H5Oopen(handle_.get(), name.c_str(), H5P_DEFAULT), H5Oclose);
  check_read(object.get(), where(name), "open the object");
  return object;
}

Group Group::group(const std::string& name) const {
  if (!contains(name)) fail(ExitCode::kBadData, where(name) + ": expected a group, found nothing of that name");
  Handle object = open_object(name);
  if (H5Iget_type(object.get()) != H5I_GROUP) {
    fail(ExitCode::kBadData, where(name) + ": expected a group, found a dataset");
  }
  return Group(origin_, path_ + (path_.back() == '/' ? "" : "/") + name, std::move(object));
}

Handle Group::open_dataset(const std::string& name) const {
  if (!contains(name)) fail(ExitCode::kBadData, where(name) + ": expected a dataset, found nothing of that name");
  Handle object = open_object(name);
  if (H5Iget_type(object.get()) != H5I_DATASET) {
    fail(ExitCode::kBadData, where(name) + ": expected a dataset, found a group or type");
  }
  return object;
}

Type Group::type(const std::string& name) const {
  const Handle dataset = open_dataset(name);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  check_read(type.get(), where(name), "read the type");
  return classify(type.get());
}

std::vector<int64_t> Group::shape(const std::string& name) const {
  const Handle dataset = open_dataset(name);
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  check_read(space.get(), where(name), "read the shape");
  return shape_of(space.get(), where(name));
}

template <typename T>
Array<T> Group::read(const std::string& name, int64_t rank) const {
  const std::string at = where(name);
  const Handle dataset = open_dataset(name);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  check_read(type.get(), at, "read the type");
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  check_read(space.get(), at, "read the shape");
  Array<T> array;
  array.shape = shape_of(space.get(), at);
  if (classify(type.get()) != type_of<T>() || static_cast<int64_t>(array.shape.size()) != rank) {
    fail(ExitCode::kBadData, at + ": expected " + type_name(type_of<T>()) + " of rank " + std::to_string(rank) +
                                 ", found " + describe(type.get()) + " " + describe(array.shape));
  }
  const std::size_t count = checked_count(dataset.get(), array.shape, H5Tget_size(type.get()), at);
  if (count == 0) return array;
  if constexpr (std::is_same_v<T, std::string>) {
    array.values = read_strings(type.get(), space.get(), count, at, [&](hid_t memory, void* data) {
      return H5Dread(dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    });
  } else {
    array.values.resize(count);
    check_read(H5Dread(dataset.get(), memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, array.values.data()), at,
               "read the dataset");
  }
  return array;
}

template <typename T>
T Group::read_scalar(const std::string& name) const {
  Array<T> array = read<T>(name, 0);
  return std::move(array.values.front());
}

std::optional<std::string> Group::string_attribute(const std::string& object, const std::string& attribute) const {
  const std::string at = where(object) + " attribute " + attribute;
  const Handle owner = open_object(object);
  const std::optional<OpenAttribute> open = open_attribute(owner.get(), attribute, at);
  if (!open) return std::nullopt;
  if (H5Tget_class(open->type.get()) != H5T_STRING) {
    fail(ExitCode::kBadData, at + ": expected a string, found " + describe(open->type.get()));
  }
  return read_strings(open->type.get(), open->space.get(), 1, at,
                      [&](hid_t memory, void* data) { return H5Aread(open->attribute.get(), memory, data); })
      .front();
}

std::optional<int64_t> Group::integer_attribute(const std::string& object, const std::string& attribute) const {
  const std::string at = where(object) + " attribute " + attribute;
  const Handle owner = open_object(object);
  const std::optional<OpenAttribute> open = open_attribute(owner.get(), attribute, at);
  if (!open) return std::nullopt;
  if (H5Tget_class(open->type.get()) != H5T_INTEGER) {
    fail(ExitCode::kBadData, at + ": expected an integer, found " + describe(open->type.get()));
  }
  int64_t value = 0;
  check_read(H5Aread(open->attribute.get(), H5T_NATIVE_INT64, &value), at, "read the attribute");
  return value;
}

#define WINNOW_INSTANTIATE(T)                                          \
  template Array<T> Group::read<T>(const std::string&, int64_t) const; \
  template T Group::read_scalar<T>(const std::string&) const;
WINNOW_INSTANTIATE(double)
WINNOW_INSTANTIATE(float)
WINNOW_INSTANTIATE(int64_t)
WINNOW_INSTANTIATE(int32_t)
WINNOW_INSTANTIATE(uint8_t)
WINNOW_INSTANTIATE(std::string)
#undef WINNOW_INSTANTIATE

}  // namespace winnow::hdf5
