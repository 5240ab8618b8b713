#include "model/safetensors_file.h"

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "model/safetensors.h"

namespace winnow::model {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kAlignment = 8;  // of the first tensor, as the reference writer has it
constexpr const char* kMetadata = "__metadata__";

std::string head_of(const nlohmann::ordered_json& header) {
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  std::string length(kLengthBytes, '\0');
  for (std::size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

// The header of a file whose form parse_safetensors() has accepted.
std::string_view header_of(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  return {reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, static_cast<std::size_t>(length)};
}

nlohmann::ordered_json read_header(const MappedFile& file) {
  parse_safetensors(file.bytes(), file.path().string());
  return parse_ordered_json(header_of(file.bytes()), file.path().string() + ": header");
}

std::span<const std::byte> data_of(const MappedFile& file) {
  return file.bytes().subspan(kLengthBytes + header_of(file.bytes()).size());
}

template <typename Bits>
std::string repeated(Bits bits, int64_t count) {
  std::string bytes(static_cast<std::size_t>(count) * sizeof bits, '\0');
  for (std::size_t at = 0; at < bytes.size(); at += sizeof bits) std::memcpy(bytes.data() + at, &bits, sizeof bits);
  return bytes;
}

}  // namespace

std::string safetensors_head(const std::vector<TensorEntry>& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  int64_t offset = 0;
  for (const TensorEntry& tensor : tensors) {
    const int64_t end = offset + tensor.size_bytes;
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  return head_of(header);
}

std::vector<TensorEntry> read_entries(const std::filesystem::path& path) {
  const nlohmann::ordered_json header = read_header(MappedFile(path));
  std::vector<TensorEntry> entries;
  for (const auto& [name, info] : header.items()) {
    if (name == kMetadata) continue;
    const nlohmann::ordered_json& offsets = info["data_offsets"];
    entries.push_back({name, info["dtype"], info["shape"], offsets[1].get<int64_t>() - offsets[0].get<int64_t>()});
  }
  return entries;
}

std::string filled_tensor(const std::string& dtype, int64_t count, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (dtype == "F32") return repeated(bits, count);
  if (dtype == "BF16") return repeated(static_cast<uint16_t>(bits >> 16), count);
  if (dtype != "F16") fail(ExitCode::kInternal, "filled_tensor: unknown type " + dtype);
  if (value == 0.F) return repeated(uint16_t{0}, count);
  const uint32_t exponent = ((bits >> 23) & 0xff) - 127 + 15;
  return repeated(static_cast<uint16_t>(((bits >> 16) & 0x8000) | (exponent << 10) | ((bits >> 13) & 0x3ff)), count);
}

void write_safetensors(const std::filesystem::path& path, const std::string& head,
                       const std::function<void(std::ostream&)>& write_values) {
  std::ofstream out(path, std::ios::binary);
  if (!out) fail(ExitCode::kCannotCreate, path.string() + ": cannot be created: " + std::strerror(errno));
  out.write(head.data(), static_cast<std::streamsize>(head.size()));
  write_values(out);
  out.close();
  if (!out) fail(ExitCode::kIoError, path.string() + ": cannot be written: " + std::strerror(errno));
}

void copy_tensor(const std::filesystem::path& from, const std::string& name, std::ostream& to) {
  const MappedFile file(from);
  const nlohmann::ordered_json header = read_header(file);
  if (!header.contains(name)) fail(ExitCode::kBadData, from.string() + ": has no tensor " + quote(name));
  const nlohmann::ordered_json& offsets = header[name]["data_offsets"];
  const auto begin = offsets[0].get<std::size_t>();
  const std::span<const std::byte> bytes = data_of(file).subspan(begin, offsets[1].get<std::size_t>() - begin);
  to.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void copy_renamed(const std::filesystem::path& from, const std::filesystem::path& to,
                  const std::function<std::string(const std::string&)>& new_name) {
  const MappedFile file(from);
  const nlohmann::ordered_json header = read_header(file);
  nlohmann::ordered_json renamed = nlohmann::ordered_json::object();
  for (const auto& [name, info] : header.items()) renamed[name == kMetadata ? name : new_name(name)] = info;
  const std::span<const std::byte> data = data_of(file);
  write_safetensors(to, head_of(renamed), [&](std::ostream& out) {
    out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  });
}

}  // namespace winnow::model
