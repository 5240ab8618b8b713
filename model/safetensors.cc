// The format of https://huggingface.co/docs/safetensors: 8 bytes of little-endian header length, the header (JSON),
// the tensors' bytes without gaps. What the reference reader refuses is refused here.
#include "model/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/json.h"

namespace winnow::model {

namespace {

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit
constexpr std::string_view kMetadata = "__metadata__";

struct StoredType {
  std::string_view name;
  uint64_t bits;
  kernels::DType dtype;
};

constexpr StoredType kStoredTypes[] = {
    {"F32", 32, kernels::DType::kF32},      {"BF16", 16, kernels::DType::kBf16},
    {"F16", 16, kernels::DType::kF16},      {"F64", 64, kernels::DType::kOther},
    {"I64", 64, kernels::DType::kOther},    {"U64", 64, kernels::DType::kOther},
    {"C64", 64, kernels::DType::kOther},    {"I32", 32, kernels::DType::kOther},
    {"U32", 32, kernels::DType::kOther},    {"I16", 16, kernels::DType::kOther},
    {"U16", 16, kernels::DType::kOther},    {"I8", 8, kernels::DType::kOther},
    {"U8", 8, kernels::DType::kOther},      {"BOOL", 8, kernels::DType::kOther},
    {"F8_E4M3", 8, kernels::DType::kOther}, {"F8_E5M2", 8, kernels::DType::kOther},
    {"F8_E8M0", 8, kernels::DType::kOther}, {"F8_E4M3FNUZ", 8, kernels::DType::kOther},
    {"F6_E2M3", 6, kernels::DType::kOther}, {"F8_E5M2FNUZ", 8, kernels::DType::kOther},
    {"F6_E3M2", 6, kernels::DType::kOther}, {"F4", 4, kernels::DType::kOther},
};

const StoredType* find_type(std::string_view name) {
  const auto found = std::ranges::find(kStoredTypes, name, &StoredType::name);
  return found == std::end(kStoredTypes) ? nullptr : found;
}

// A tensor as the header declares it; offsets in bytes from the end of the header.
struct Entry {
  std::string label;  // file and tensor, for messages
  std::string name;
  const StoredType* type = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// A JSON integer in [0, 2^63).
std::optional<uint64_t> as_count(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto count = value.get<uint64_t>();
  if (count > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return count;
}

[[noreturn]] void refuse(const std::string& where, const std::string& expected, const std::string& found) {
  fail(ExitCode::kBadData, where + ": expected " + expected + ", found " + found);
}

const Json& field(const Json& info, const char* key, const std::string& label) {
  const auto found = info.find(key);
  if (found == info.end()) refuse(label, std::string("a field \"") + key + '"', "none");
  return *found;
}

std::vector<int64_t> parse_shape(const Json& value, const std::string& label) {
  if (!value.is_array()) refuse(label + ", shape", "a list of integers", shown(value));
  std::vector<int64_t> shape;
  for (const Json& item : value) {
    const auto extent = as_count(item);
    if (!extent) refuse(label + ", shape", "integers from 0 to 2^63 - 1", shown(value));
    shape.push_back(static_cast<int64_t>(*extent));
  }
  return shape;
}

// Bytes that shape and dtype ask for.
uint64_t expected_bytes(const Entry& entry, const Json& shape) {
  uint64_t bits = entry.type->bits;
  for (const int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(extent), &bits)) {
      refuse(entry.label + ", shape", "a size below 2^64 bits", shown(shape));
    }
  }
  if (bits % 8 != 0) {
    refuse(entry.label + ", shape", "whole bytes of " + std::string(entry.type->name), shown(shape));
  }
  return bits / 8;
}

Entry parse_entry(const std::string& name, const Json& info, const std::string& origin) {
  Entry entry;
  entry.name = name;
  entry.label = origin + ": tensor " + quote(name);
  if (!info.is_object()) refuse(entry.label, "an object with dtype, shape and data_offsets", shown(info));
  const Json& dtype = field(info, "dtype", entry.label);
  entry.type = dtype.is_string() ? find_type(dtype.get_ref<const std::string&>()) : nullptr;
  if (entry.type == nullptr) refuse(entry.label + ", dtype", "a type of the safetensors format", shown(dtype));
  const Json& shape = field(info, "shape", entry.label);
  entry.shape = parse_shape(shape, entry.label);

  const Json& offsets = field(info, "data_offsets", entry.label);
  const auto where = [&] { return entry.label + ", data_offsets"; };
  if (!offsets.is_array() || offsets.size() != 2 || !as_count(offsets[0]) || !as_count(offsets[1])) {
    refuse(where(), "two integers from 0 to 2^63 - 1", shown(offsets));
  }
  entry.begin = *as_count(offsets[0]);
  entry.end = *as_count(offsets[1]);
  if (entry.end < entry.begin) refuse(where(), "begin <= end", shown(offsets));
  const uint64_t bytes = expected_bytes(entry, shape);
  if (entry.end - entry.begin != bytes) {
    refuse(where(), std::to_string(bytes) + " bytes for shape " + shown(shape) + " of " + std::string(entry.type->name),
           std::to_string(entry.end - entry.begin) + " bytes");
  }
  return entry;
}

void check_metadata(const Json& metadata, const std::string& origin) {
  const bool is_map =
      metadata.is_object() && std::ranges::all_of(metadata, [](const Json& v) { return v.is_string(); });
  if (!is_map) refuse(origin + ": __metadata__", "an object of strings", shown(metadata));
}

// The tensors must cover the data exactly: in order of offsets each begins where the one before ends.
void check_layout(std::vector<Entry>& entries, uint64_t data_bytes, const std::string& origin) {
  std::ranges::sort(
      entries, [](const Entry& a, const Entry& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  uint64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.end > data_bytes) {
      refuse(entry.label + ", data_offsets",
             "an end within the file's " + std::to_string(data_bytes) + " bytes of data",
             std::to_string(entry.end) + ": the file is truncated, or the offset is wrong");
    }
    if (entry.begin != at) {
      refuse(entry.label + ", data_offsets", "a begin of " + std::to_string(at) + ", the end of the tensor before",
             std::to_string(entry.begin) + (entry.begin < at ? ": tensors overlap" : ": a hole between tensors"));
    }
    at = entry.end;
  }
  if (at != data_bytes) {
    refuse(origin, std::to_string(at) + " bytes of data, as the header declares", std::to_string(data_bytes));
  }
}

// What is often found in place of weights is named. For a file that cannot be read: its first bytes could also be the
// length of a header.
void refuse_other_kind(std::span<const std::byte> bytes, const std::string& origin) {
  if (const auto kind = file_kind(bytes)) refuse(origin, "a safetensors file", *kind);
  if (!bytes.empty() && std::to_integer<char>(bytes[0]) == '{') {
    refuse(origin, "a safetensors file", "a text of JSON, such as a server's error message: download the file again");
  }
}

std::string_view header_text(std::span<const std::byte> bytes, const std::string& origin) {
  uint64_t length = 0;
  for (uint64_t i = 0; i < kLengthBytes && i < bytes.size(); ++i) {
    length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  const bool has_header = bytes.size() >= kLengthBytes && length <= kMaxHeaderBytes &&
                          length <= bytes.size() - kLengthBytes && length > 0 &&
                          std::to_integer<char>(bytes[kLengthBytes]) == '{';
  if (!has_header) refuse_other_kind(bytes, origin);
  if (bytes.size() < kLengthBytes) {
    refuse(origin, "a safetensors file of at least 8 bytes", std::to_string(bytes.size()) + " bytes");
  }
  if (length > kMaxHeaderBytes) {
    refuse(origin, "a header of at most " + std::to_string(kMaxHeaderBytes) + " bytes", std::to_string(length));
  }
  if (length > bytes.size() - kLengthBytes) {
    refuse(origin, "a header of " + std::to_string(length) + " bytes",
           "a file that ends after " + std::to_string(bytes.size() - kLengthBytes) + " of them");
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) refuse(origin + ": header", "JSON that begins with {", quote(text.substr(0, 1)));
  return text;
}

}  // namespace

std::map<std::string, kernels::HostTensor> parse_safetensors(std::span<const std::byte> bytes,
                                                             const std::string& origin) {
  const std::string_view text = header_text(bytes, origin);
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + text.size());
  const Json header = parse_json(text, origin + ": header");
  std::vector<Entry> entries;
  for (const auto& [name, info] : header.items()) {
    if (name == kMetadata) {
      check_metadata(info, origin);
    } else {
      entries.push_back(parse_entry(name, info, origin));
    }
  }
  check_layout(entries, data.size(), origin);

  std::map<std::string, kernels::HostTensor> tensors;
  for (Entry& entry : entries) {
    kernels::HostTensor& tensor = tensors[entry.name];
    tensor.data = data.data() + entry.begin;
    tensor.dtype = entry.type->dtype;
    tensor.shape = std::move(entry.shape);
    tensor.name = std::move(entry.label);
    tensor.dtype_name = entry.type->name;
  }
  return tensors;
}

}  // namespace winnow::model
