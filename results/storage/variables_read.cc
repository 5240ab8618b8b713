#include "results/storage/variables_read.h"

#include <optional>
#include <string>
#include <utility>

namespace winnow::storage {

stats::Figure read_figure(const Group& group, const std::string& name) {
  const auto value = group.read_scalar<double>(name);
  const std::optional<std::string> status = group.string_attribute(name, "status");
  if (status) return stats::Figure::undefined(*status);
  if (value != value) fail(ExitCode::kBadData, group.where(name) + ": is NaN without an attribute status");
  return stats::Figure::of(value);
}

stats::Estimate read_estimate(const Group& group, const std::string& name, const std::string& interval_prefix) {
  return {read_figure(group, name), read_figure(group, interval_prefix + "_ci_low"),
          read_figure(group, interval_prefix + "_ci_high")};
}

std::vector<std::string> read_token_hashes(const Group& group, int64_t n_examples) {
  if (!group.contains("token_hash")) return {};
  return read_variable<std::string>(group, "token_hash", {n_examples});
}

std::vector<KvType> read_kv_types(const Group& group, const std::string& name, const std::vector<int64_t>& shape) {
  std::vector<KvType> types;
  for (const std::string& found : read_variable<std::string>(group, name, shape)) {
    const std::optional<KvType> type = find_kv_type(found);
    if (!type) {
      fail(ExitCode::kBadData, group.where(name) + ": expected bf16, fp8, int8 or int4, found \"" + found + "\"");
    }
    types.push_back(*type);
  }
  return types;
}

Provenance read_provenance(const Group& group) {
  Provenance provenance;
  for (const std::string& name : group.names()) {
    ProvenanceValue value;
    switch (group.type(name)) {
      case Type::kString:
        value = group.read_scalar<std::string>(name);
        break;
      case Type::kInt64:
        value = group.read_scalar<int64_t>(name);
        break;
      case Type::kFloat64:
        value = group.read_scalar<double>(name);
        break;
      default:
        fail(ExitCode::kBadData, group.where(name) + ": expected a string, int64 or float64");
    }
    provenance.set(name, std::move(value), group.string_attribute(name, "long_name").value_or(""),
                   group.string_attribute(name, "units").value_or(""));
  }
  return provenance;
}

}  // namespace winnow::storage
