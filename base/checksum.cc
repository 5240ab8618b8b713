#include "base/checksum.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/sha256.h"

namespace winnow {
namespace {

constexpr std::string_view kMark = "\nwinnow sha256 ";
constexpr const char* kWriteAnew = "copy it again, or repeat the command that wrote it";

// HDF5 File Format Specification 3.0, II.A, superblock versions 2 and 3.
constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n", 8);
constexpr std::size_t kVersionOffset = 8;
constexpr std::size_t kAddressSizeOffset = 9;
constexpr std::size_t kFlagsOffset = 11;
constexpr std::size_t kBaseOffset = 12;
constexpr std::size_t kEndOfFileOffset = 28;

uint64_t little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = (value << 8) | std::to_integer<uint64_t>(bytes[i]);
  return value;
}

// The shortest digits that read back as the value, laid out as Python's repr() does: nlohmann's own text has a digit
// more here and there, which a formula in another language would not find.
std::string number_text(double value) {
  if (!std::isfinite(value)) return "null";
  std::array<char, 32> buffer{};
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::string sign = std::signbit(value) ? "-" : "";
  const std::string_view mantissa = text.substr(sign.size(), text.find('e') - sign.size());
  const int exponent = std::stoi(std::string(text.substr(text.find('e') + 1)));
  constexpr int kLeastFixed = -4;
  constexpr int kMostFixed = 15;
  if (exponent < kLeastFixed || exponent > kMostFixed) {
    return sign + std::string(mantissa) + std::string(text.substr(text.find('e')));
  }
  std::string digits(mantissa.substr(0, 1));
  if (mantissa.size() > 2) digits += mantissa.substr(2);
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto n_whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() < n_whole) digits.append(n_whole - digits.size(), '0');
  const std::string fraction = digits.substr(n_whole);
  return sign + digits.substr(0, n_whole) + "." + (fraction.empty() ? "0" : fraction);
}

std::string dumped(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// One line without spaces, keys sorted.
std::string canonical_text(const nlohmann::json& value) {
  if (value.is_number_float()) return number_text(value.get<double>());
  if (!value.is_structured()) return dumped(value);
  std::string text;
  for (const auto& item : value.items()) {
    if (!text.empty()) text += ',';
    if (value.is_object()) text += dumped(item.key()) + ":";
    text += canonical_text(item.value());
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

nlohmann::json without(const nlohmann::json& object, const std::string& key) {
  nlohmann::json said = object;
  said.erase(key);
  return said;
}

}  // namespace

std::string hdf5_checksum(std::span<const std::byte> content) { return std::string(kMark) + sha256_of(content) + "\n"; }

uint64_t hdf5_end(std::span<const std::byte, kSuperblockBytes> head) {
  if (std::memcmp(head.data(), kSignature.data(), kSignature.size()) != 0) return 0;
  const auto version = std::to_integer<int>(head[kVersionOffset]);
  const bool is_known = (version == 2 || version == 3) && head[kAddressSizeOffset] == std::byte{8};
  if (!is_known || little_endian(head.subspan(kBaseOffset, 8)) != 0) return 0;
  return little_endian(head.subspan(kEndOfFileOffset, 8));
}

Checksum check_hdf5(const std::filesystem::path& path) {
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(path, unknown)) return Checksum::kAbsent;
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const auto size = static_cast<int64_t>(in.tellg());
  constexpr auto kTail = static_cast<int64_t>(kChecksumBytes);
  if (!in || size < kTail) return Checksum::kAbsent;
  std::array<char, kSuperblockBytes> head{};
  std::string tail(kChecksumBytes, '\0');
  in.seekg(0);
  in.read(head.data(), head.size());
  in.seekg(size - kTail);
  in.read(tail.data(), kTail);
  if (!in) fail(ExitCode::kNoInput, path.string() + ": cannot be read to its end");
  // Another program has it open for writing, and is about to take the checksum away. Were it a flipped bit, HDF5 would
  // refuse the superblock, which has a checksum of its own.
  if (hdf5_end(std::as_bytes(std::span(head))) > 0 && head[kFlagsOffset] != 0) return Checksum::kAbsent;
  if (!tail.starts_with(kMark)) {
    const uint64_t end = hdf5_end(std::as_bytes(std::span(head)));
    const uint64_t behind = end > 0 && static_cast<uint64_t>(size) > end ? static_cast<uint64_t>(size) - end : 0;
    if (behind == 0 || behind > kChecksumBytes) return Checksum::kAbsent;
    fail(ExitCode::kBadData,
         path.string() + ": cut short or damaged: what stands in the place of its checksum is none; " + kWriteAnew);
  }
  if (tail.substr(kMark.size()) != sha256_of_file(path, size - kTail) + "\n") {
    fail(ExitCode::kBadData,
         path.string() + ": damaged: its content does not match the checksum at its end; " + kWriteAnew);
  }
  return Checksum::kMatches;
}

std::string json_checksum(const nlohmann::json& object, const std::string& key) {
  return sha256_of(canonical_text(without(object, key)));
}

Checksum check_json(const nlohmann::json& object, const std::string& origin, const std::string& advice,
                    const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end()) return Checksum::kAbsent;
  if (*found == json_checksum(object, key)) return Checksum::kMatches;
  // Files of 0.1.0 have that of nlohmann's text, which is the same but for one number in some thousands.
  if (*found == sha256_of(dumped(without(object, key)))) return Checksum::kMatches;
  fail(ExitCode::kBadData, origin + ": damaged or changed: its content does not match its " + key + "; " + advice);
}

void note_no_checksum(const std::filesystem::path& file) {
  std::fprintf(
      stderr,
      "winnow: note: %s: has no checksum (it is older, or another program has written to it): damage would not be "
      "noticed\n",
      one_line(file.string()).c_str());
}

}  // namespace winnow
