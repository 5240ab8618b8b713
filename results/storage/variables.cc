#include "results/storage/variables.h"

#include <string>
#include <variant>

namespace winnow::storage {

void write_figure(Group& group, const std::string& name, const stats::Figure& figure, const std::string& long_name) {
  group.write_scalar<double>(name, figure.value);
  describe(group, name, {kOne, long_name});
  if (!figure.defined()) group.set_attribute<std::string>(name, "status", figure.status);
}

void write_estimate(Group& group, const std::string& name, const std::string& interval_prefix,
                    const stats::Estimate& estimate, const std::string& long_name) {
  write_figure(group, name, estimate.value, long_name);
  write_figure(group, interval_prefix + "_ci_low", estimate.ci_low, "lower end of the 95 % interval of " + name);
  write_figure(group, interval_prefix + "_ci_high", estimate.ci_high, "upper end of the 95 % interval of " + name);
}

void write_token_hashes(Group& group, const std::vector<std::string>& hashes) {
  if (hashes.empty()) return;
  write_variable(group, {"token_hash", {"example"}, {static_cast<int64_t>(hashes.size())}}, hashes,
                 {kText, "first 16 digits of the SHA-256 of the example's tokens"});
}

void write_root(Group& root, const std::string& title, const Provenance& provenance) {
  const std::string version = provenance.text("winnow_version");
  root.set_attribute<std::string>(".", "Conventions", "winnow-results-" + std::to_string(kResultsVersion));
  root.set_attribute<std::string>(".", "title", title);
  root.set_attribute<std::string>(".", "created_by", version.empty() ? "winnow" : "winnow " + version);
  root.set_attribute<std::string>(".", "format", kResultsFormat);
  root.set_attribute<int64_t>(".", "format_version", kResultsVersion);
}

void write_provenance(Group group, const Provenance& provenance) {
  for (const ProvenanceEntry& entry : provenance.entries()) {
    std::visit([&](const auto& value) { group.write_scalar(entry.name, value); }, entry.value);
    describe(group, entry.name, {entry.units.c_str(), entry.long_name});
  }
}

}  // namespace winnow::storage
