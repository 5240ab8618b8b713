#include "model/quantization/readers.h"

#include "base/error.h"

namespace winnow::quantization {

void read_ignored(const ConfigFields& fields, Scheme& scheme, std::initializer_list<const char*> keys,
                  ModuleRule rule) {
  for (const char* key : keys) {
    if (!fields.has(key)) continue;
    scheme.ignored = ModuleList(fields, key, rule);
    scheme.ignored_key = key;
    return;
  }
  scheme.ignored_key = *keys.begin();
}

void require_absent(const ConfigFields& fields, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const nlohmann::json& value = fields.value(key);
    const bool is_off = value.is_null() || value == false || (value.is_structured() && value.empty());
    if (!is_off) fields.refuse(key, "none: it changes what the model computes and winnow does not follow it");
  }
}

void require_text(const ConfigFields& fields, const char* key, std::initializer_list<const char*> allowed) {
  if (!fields.has(key)) return;
  const std::string found = fields.text(key, "");
  std::string expected;
  for (const char* each : allowed) {
    if (found == each) return;
    expected += (expected.empty() ? "" : " or ") + std::string(each);
  }
  fields.refuse(key, expected);
}

int64_t read_group_size(const ConfigFields& fields, int64_t fallback) {
  const char* key = "group_size";
  if (!fields.has(key)) return fields.is_absent(key) ? fallback : Weights::kAll;
  const bool is_all = fields.value(key) == -1;
  return is_all ? Weights::kAll : fields.size(key, fallback);
}

}  // namespace winnow::quantization
