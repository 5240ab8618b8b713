// Writes safetensors files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace winnow::model {

// A tensor of a file, as its header has it.
struct TensorEntry {
  std::string name;
  std::string dtype;  // as the format spells it: "F32", "BF16"
  std::vector<int64_t> shape;
  int64_t size_bytes = 0;
};

// Returns the beginning of a file, up to the first tensor's bytes, which follow in this order without a gap.
std::string safetensors_head(const std::vector<TensorEntry>& tensors);

// Returns the tensors of a file by name. Throws Error(kNoInput | kBadData).
std::vector<TensorEntry> read_entries(const std::filesystem::path& path);

// Returns the bytes of a tensor whose elements all have one value. `dtype` is F32, BF16 or F16: the value is cut to
// what the type holds, in which it must be 0 or a normal number.
std::string filled_tensor(const std::string& dtype, int64_t count, float value);

// Writes a file; `write_values` writes the bytes of the tensors in their order. Throws Error(kCannotCreate | kIoError).
void write_safetensors(const std::filesystem::path& path, const std::string& head,
                       const std::function<void(std::ostream&)>& write_values);

// Writes the bytes of one tensor of a file. Throws Error(kNoInput | kBadData).
void copy_tensor(const std::filesystem::path& from, const std::string& name, std::ostream& to);

// Writes a copy of a file in which tensors have other names. Throws Error(kNoInput | kBadData) for what cannot be read,
// Error(kCannotCreate | kIoError) for what cannot be written.
void copy_renamed(const std::filesystem::path& from, const std::filesystem::path& to,
                  const std::function<std::string(const std::string&)>& new_name);

}  // namespace winnow::model
