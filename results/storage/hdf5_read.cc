// Reading asks the process that has the file open, results/storage/hdf5_reader.h.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checksum.h"
#include "base/error.h"
#include "base/file_descriptor.h"
#include "results/storage/hdf5.h"
#include "results/storage/hdf5_library.h"
#include "results/storage/hdf5_reader.h"

namespace winnow::storage {
namespace {

// The words for what is no file; nothing for a file.
const char* other_than_a_file(mode_t mode) {
  if (S_ISREG(mode)) return nullptr;
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  return S_ISSOCK(mode) ? "a socket" : "a device";
}

std::vector<int64_t> take_shape(Message& answer) {
  std::vector<int64_t> shape(answer.take<uint64_t>() & 0xff);
  for (int64_t& extent : shape) extent = answer.take<int64_t>();
  return shape;
}

std::vector<std::string> take_texts(Message& answer) {
  const auto n_texts = answer.take<uint64_t>();
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < n_texts; ++i) texts.push_back(answer.take_text());
  return texts;
}

// What comes back is looked at once more: the process that a damaged file broke down in may say anything.
std::size_t checked_count(const std::vector<int64_t>& shape, uint64_t limit, const std::string& where) {
  uint64_t count = 1;
  for (const int64_t extent : shape) {
    if (extent == 0) return 0;
    if (extent < 0 || count > limit / static_cast<uint64_t>(extent)) {
      fail(ExitCode::kBadData, where + ": claims more values than the file can hold");
    }
    count *= static_cast<uint64_t>(extent);
  }
  return static_cast<std::size_t>(count);
}

template <typename T>
constexpr Type type_of() {
  if constexpr (std::is_same_v<T, double>) return Type::kFloat64;
  if constexpr (std::is_same_v<T, float>) return Type::kFloat32;
  if constexpr (std::is_same_v<T, int64_t>) return Type::kInt64;
  if constexpr (std::is_same_v<T, int32_t>) return Type::kInt32;
  if constexpr (std::is_same_v<T, uint8_t>) return Type::kUint8;
  if constexpr (std::is_same_v<T, std::string>) return Type::kString;
}

}  // namespace

File File::open(const std::filesystem::path& path) {
  const std::string at = path.string();
  // HDF5 reports every reason alike; the operating system tells a missing file from one that is no HDF5 file.
  // O_NONBLOCK: to open a pipe must not wait for its writer.
  FileDescriptor fd(::open(at.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) fail(ExitCode::kNoInput, at + ": cannot be read: " + std::strerror(errno));
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) fail(ExitCode::kNoInput, at + ": cannot be read: " + std::strerror(errno));
  fd.close();  // not held while the file is hashed, and read by another process
  if (const char* what = other_than_a_file(status.st_mode)) {
    fail(ExitCode::kNoInput, at + ": is " + what + ", not an HDF5 file");
  }
  if (status.st_size == 0) fail(ExitCode::kBadData, at + ": is empty, not an HDF5 file");
  const bool has_checksum = check_hdf5(path) == Checksum::kMatches;
  auto reader =
      std::make_shared<Reader>(std::filesystem::absolute(path).string(), at, static_cast<uint64_t>(status.st_size));
  return File(path, nullptr, Handle(), std::move(reader), has_checksum);
}

Reader& Group::reader() const {
  if (reader_ == nullptr) fail(ExitCode::kInternal, *origin_ + ": is being written, and cannot be read yet");
  return *reader_;
}

bool Group::contains(const std::string& name) const {
  return reader().ask(Request::kKind, path_of(name)).take<Kind>() != Kind::kNothing;
}

bool Group::contains_group(const std::string& name) const {
  return reader().ask(Request::kKind, path_of(name)).take<Kind>() == Kind::kGroup;
}

std::vector<std::string> Group::names() const {
  Message answer = reader().ask(Request::kNames, path_);
  return take_texts(answer);
}

Group Group::group(const std::string& name) const {
  const Kind kind = reader().ask(Request::kKind, path_of(name)).take<Kind>();
  if (kind == Kind::kNothing) fail(ExitCode::kBadData, where(name) + ": expected a group, found nothing of that name");
  if (kind != Kind::kGroup) fail(ExitCode::kBadData, where(name) + ": expected a group, found a dataset");
  return Group(origin_, path_of(name), Handle(), reader_);
}

Type Group::type(const std::string& name) const { return reader().ask(Request::kType, path_of(name)).take<Type>(); }

std::vector<int64_t> Group::shape(const std::string& name) const {
  Message answer = reader().ask(Request::kShape, path_of(name));
  return take_shape(answer);
}

template <typename T>
Array<T> Group::read(const std::string& name, int64_t rank) const {
  const std::string object = path_of(name);
  Message wanted;
  wanted.put(type_of<T>());
  wanted.put(rank);
  Message answer = reader().ask(Request::kRead, object, wanted);
  Array<T> array;
  array.shape = take_shape(answer);
  if constexpr (std::is_same_v<T, std::string>) {
    array.values = take_texts(answer);
    if (array.values.size() != checked_count(array.shape, reader().max_bytes(), where(name))) {
      fail(ExitCode::kBadData, where(name) + ": is damaged: its values do not fit its shape");
    }
  } else {
    const std::size_t count = checked_count(array.shape, reader().max_bytes() / sizeof(T), where(name));
    array.values.reserve(count);
    while (array.values.size() < count) {
      const auto n_bytes = static_cast<std::size_t>(reader().answer(object).template take<uint64_t>());
      const std::size_t begin = array.values.size();
      if (n_bytes == 0 || n_bytes % sizeof(T) != 0 || n_bytes / sizeof(T) > count - begin) {
        fail(ExitCode::kBadData, where(name) + ": is damaged: its values do not fit its shape");
      }
      array.values.resize(begin + n_bytes / sizeof(T));
      reader().receive(object, &array.values[begin], n_bytes);
    }
  }
  return array;
}

template <typename T>
T Group::read_scalar(const std::string& name) const {
  Array<T> array = read<T>(name, 0);
  if (array.values.empty()) fail(ExitCode::kBadData, where(name) + ": has no value");
  return std::move(array.values.front());
}

std::optional<std::string> Group::string_attribute(const std::string& object, const std::string& attribute) const {
  Message name;
  name.put_text(attribute);
  Message answer = reader().ask(Request::kStringAttribute, path_of(object), name);
  if (!answer.take<bool>()) return std::nullopt;
  return answer.take_text();
}

std::optional<int64_t> Group::integer_attribute(const std::string& object, const std::string& attribute) const {
  Message name;
  name.put_text(attribute);
  Message answer = reader().ask(Request::kIntegerAttribute, path_of(object), name);
  if (!answer.take<bool>()) return std::nullopt;
  return answer.take<int64_t>();
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

}  // namespace winnow::storage
