#include "base/kv_type.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"

namespace winnow {

std::string_view kv_type_name(KvType type) {
  switch (type) {
    case KvType::kStored:
      return "bf16";
    case KvType::kFp8:
      return "fp8";
    case KvType::kInt8:
      return "int8";
    case KvType::kInt4:
      return "int4";
  }
  return "";
}

std::optional<KvType> find_kv_type(std::string_view name) {
  const auto found = std::ranges::find(kKvTypes, name, kv_type_name);
  if (found == kKvTypes.end()) return std::nullopt;
  return *found;
}

std::vector<KvType> parse_kv_types(const std::string& text, const std::string& flag) {
  std::vector<KvType> types;
  std::stringstream list(text);
  for (std::string item; std::getline(list, item, ',');) {
    const auto type = find_kv_type(item);
    if (!type) {
      fail(ExitCode::kUsage,
           flag + ": \"" + item + "\" is no type of keys and values; expected bf16, fp8, int8 or int4, with commas");
    }
    if (std::ranges::find(types, *type) != types.end()) {
      fail(ExitCode::kUsage, flag + ": " + item + " is given twice; types must differ");
    }
    types.push_back(*type);
  }
  if (types.empty() || text.ends_with(',')) {
    fail(ExitCode::kUsage, flag + ": \"" + text + "\" is no list of types; expected for example bf16,fp8");
  }
  std::ranges::sort(types);
  return types;
}

std::vector<std::string> names_of(const std::vector<KvType>& types) {
  std::vector<std::string> names;
  for (const KvType type : types) names.emplace_back(kv_type_name(type));
  return names;
}

std::string joined_names(const std::vector<KvType>& types, const std::string& separator) {
  std::string text;
  for (const KvType type : types) text += (text.empty() ? "" : separator) + std::string(kv_type_name(type));
  return text;
}

std::string setting_name(int64_t window, KvType type) {
  return (window == 0 ? "full attention" : std::to_string(window) + " keys") + " in " + std::string(kv_type_name(type));
}

int64_t kv_head_bytes(KvType type, int64_t head_dim, int64_t stored_bytes) {
  switch (type) {
    case KvType::kStored:
      return head_dim * stored_bytes;
    case KvType::kFp8:
      return head_dim;
    case KvType::kInt8:
      return head_dim + 4;
    case KvType::kInt4:
      return head_dim / 2 + 4;
  }
  return 0;
}

}  // namespace winnow
