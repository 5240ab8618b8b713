// The types in which an engine keeps the keys and values of a layer. kernels/kv_rounding.h says what each does to them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace winnow {

enum class KvType : uint8_t {
  kStored,  // as the layer computes them
  kFp8,     // e4m3, one scale for the keys of a layer and one for its values
  kInt8,    // a scale for each token and key-value head
  kInt4,    // a scale and a least value for each token and key-value head
};
inline constexpr std::array kKvTypes = {KvType::kStored, KvType::kFp8, KvType::kInt8, KvType::kInt4};

// Returns its name in flags and files: "bf16", which stands for the type of the model, "fp8", "int8" or "int4".
std::string_view kv_type_name(KvType type);
std::optional<KvType> find_kv_type(std::string_view name);
// Parses "bf16,fp8" and returns the types, each once, in the order of kKvTypes. `flag` names the flag in messages.
// Throws Error(kUsage).
std::vector<KvType> parse_kv_types(const std::string& text, const std::string& flag);
// Return their names, one by one, and as "fp8, int8".
std::vector<std::string> names_of(const std::vector<KvType>& types);
std::string joined_names(const std::vector<KvType>& types, const std::string& separator = ", ");
// Returns what a layer is under: "512 keys in fp8", or "full attention in fp8" for the window 0.
std::string setting_name(int64_t window, KvType type);
// Returns the bytes of the key, or of the value, of one token and key-value head; head_dim even, stored_bytes those of
// an element of the type of the model. Scales are counted: one of four bytes of int8, two of two bytes of int4.
int64_t kv_head_bytes(KvType type, int64_t head_dim, int64_t stored_bytes);

}  // namespace winnow
