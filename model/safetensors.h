// Memory-mapped safetensors, one file or shards with an index. Bounds-checked: no byte of a file is trusted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace winnow {

// A file mapped read-only. Move only.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // throws Error(kNoInput)
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Parses one safetensors image. Views point into `bytes`. Refuses what the format forbids: a header that is no JSON or
// has a key twice, unknown dtypes, offsets that do not match shape x dtype, overlap, holes, bytes that no tensor
// covers. Throws Error(kBadData) naming `origin` and the tensor. This is the fuzz target.
std::map<std::string, HostTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& origin);

// Asks the system to bring a tensor's pages into memory while other work goes on. A hint: it cannot fail.
void read_ahead(const HostTensor& tensor);

// All tensors of a checkpoint directory: model.safetensors, or model.safetensors.index.json with its shards.
class Checkpoint {
 public:
  // Throws Error(kNoInput) for what is missing or unreadable, a shard too, and Error(kBadData) for what is malformed, a
  // tensor in two shards or in another than the index says.
  explicit Checkpoint(const std::filesystem::path& model_dir);

  bool contains(const std::string& name) const { return tensors_.count(name) != 0; }
  // The tensor, which must have that shape and a floating dtype that winnow reads; throws Error(kBadData) with the
  // resolved name, the file, expected and found.
  const HostTensor& get(const std::string& name, const std::vector<int64_t>& shape) const;
  const std::map<std::string, HostTensor>& tensors() const { return tensors_; }
  const std::vector<std::unique_ptr<MappedFile>>& files() const { return files_; }
  const std::filesystem::path& directory() const { return directory_; }
  int64_t size_bytes() const;  // of all files

 private:
  void add_file(const std::filesystem::path& path, bool is_shard);

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<MappedFile>> files_;  // in name order
  std::map<std::string, std::string> shards_;       // tensor -> name of its file
  std::map<std::string, HostTensor> tensors_;
};

}  // namespace winnow
