// Files and shards of a checkpoint directory.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "kernels/error.h"
#include "model/json.h"
#include "model/safetensors.h"

namespace winnow {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kMaxIndexBytes = std::size_t{100} << 20;

[[noreturn]] void cannot_read(const fs::path& path, const char* reason) {
  fail(ExitCode::kNoInput, path.string() + ": cannot be read: " + reason);
}

// A file descriptor, closed at the end of its scope.
class Descriptor {
 public:
  // O_NONBLOCK: to open a pipe must not wait for its writer.
  explicit Descriptor(const fs::path& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string shape_text(const std::vector<int64_t>& shape) { return shown(Json(shape)); }

// The shard that each tensor of the index is in. Names of shards are plain file names: an index is no way out of its
// directory. (The file may be a link, as in the hub's cache.)
std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json index = parse_json(read_text(path, kMaxIndexBytes), path.string());
  const auto refuse = [&](const std::string& where, const std::string& expected, const Json& found) {
    fail(ExitCode::kBadData, path.string() + ": " + where + ": expected " + expected + ", found " + shown(found));
  };
  if (!index.is_object()) refuse("top level", "an object", index);
  const Json weight_map = index.value("weight_map", Json());
  if (!weight_map.is_object() || weight_map.empty()) refuse("weight_map", "an object of tensor to file", weight_map);
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : weight_map.items()) {
    const std::string where = "weight_map, tensor " + quote(tensor);
    if (!shard.is_string()) refuse(where, "a file name", shard);
    const auto& name = shard.get_ref<const std::string&>();
    const bool is_plain = !name.empty() && name != "." && name != ".." &&
                          name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!is_plain) refuse(where, "the name of a file in the same directory", shard);
    shards.emplace(tensor, name);
  }
  return shards;
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const Descriptor file(path);
  if (file.get() < 0) cannot_read(path, std::strerror(errno));
  struct stat status {};
  if (fstat(file.get(), &status) != 0) cannot_read(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) cannot_read(path, "not a regular file");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses it
  void* data = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) cannot_read(path, std::strerror(errno));
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, std::size_t{0})) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void read_ahead(const HostTensor& tensor) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(tensor.data);
  const auto in_page = address % page;
  const auto size = static_cast<std::size_t>(tensor.count() * size_bytes(tensor.dtype)) + in_page;
  auto* const begin = const_cast<std::byte*>(reinterpret_cast<const std::byte*>(tensor.data)) - in_page;
  static_cast<void>(madvise(begin, size, MADV_WILLNEED));  // what it refuses is read later
}

Checkpoint::Checkpoint(const fs::path& model_dir) : directory_(model_dir) {
  std::error_code error;
  if (!fs::is_directory(model_dir, error)) {
    const bool exists = fs::exists(model_dir, error);
    fail(ExitCode::kNoInput, model_dir.string() + ": expected a directory with a model, found " +
                                 (exists  ? "a file"
                                  : error ? error.message()
                                          : "nothing of that name"));
  }
  std::map<std::string, std::string> index;
  std::set<std::string> names = {kSingleFile};
  if (!fs::exists(model_dir / kSingleFile, error)) {
    if (!fs::exists(model_dir / kIndexFile, error)) {
      const bool has_pickle = fs::exists(model_dir / "pytorch_model.bin", error) ||
                              fs::exists(model_dir / "pytorch_model.bin.index.json", error);
      fail(ExitCode::kNoInput, model_dir.string() + ": expected " + kSingleFile + " or " + kIndexFile + ", found " +
                                   (has_pickle ? "pytorch_model.bin: save it as safetensors first" : "neither"));
    }
    index = read_index(model_dir / kIndexFile);
    names.clear();
    for (const auto& [tensor, shard] : index) names.insert(shard);
  }
  for (const std::string& name : names) add_file(model_dir / name, !index.empty());
  for (const auto& [tensor, shard] : index) {
    const auto found = shards_.find(tensor);
    if (found != shards_.end() && found->second == shard) continue;
    fail(ExitCode::kBadData, (model_dir / kIndexFile).string() + ": tensor " + quote(tensor) + ": expected in " +
                                 quote(shard) + ", found " +
                                 (found == shards_.end() ? "in no shard" : "in " + quote(found->second)));
  }
}

void Checkpoint::add_file(const fs::path& path, bool is_shard) {
  std::error_code error;
  if (is_shard && !fs::exists(path, error)) {
    fail(ExitCode::kNoInput, path.string() + ": expected this shard, which " + std::string(kIndexFile) +
                                 " names, found nothing of that name: the download is incomplete");
  }
  files_.push_back(std::make_unique<MappedFile>(path));
  const std::string file = path.filename().string();
  for (auto& [name, tensor] : parse_safetensors(files_.back()->bytes(), path.string())) {
    const auto [shard, is_new] = shards_.emplace(name, file);
    if (!is_new) {
      fail(ExitCode::kBadData, tensor.name + ": expected in one shard, found in " + quote(shard->second) + " too");
    }
    tensors_.emplace(name, std::move(tensor));
  }
}

const HostTensor& Checkpoint::get(const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    const std::string stem = name.substr(0, name.rfind('.'));
    const bool is_packed = contains(stem + ".qweight") || contains(stem + ".weight_packed");
    fail(ExitCode::kBadData, directory_.string() + ": tensor " + quote(name) + ": expected shape " + shape_text(shape) +
                                 ", found no such tensor" +
                                 (is_packed ? " but packed weights: quantised checkpoints are not supported" : ""));
  }
  const HostTensor& tensor = found->second;
  if (tensor.dtype == DType::kOther) {
    fail(ExitCode::kBadData, tensor.name + ": expected dtype BF16, F16 or F32, found " + tensor.dtype_name +
                                 ": quantised and other types are not supported");
  }
  if (tensor.shape != shape) {
    fail(ExitCode::kBadData,
         tensor.name + ": expected shape " + shape_text(shape) + ", found " + shape_text(tensor.shape));
  }
  return tensor;
}

int64_t Checkpoint::size_bytes() const {
  int64_t total = 0;
  for (const auto& file : files_) total += static_cast<int64_t>(file->bytes().size());
  return total;
}

}  // namespace winnow
