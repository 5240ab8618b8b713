#include "pipeline/run/profile_report.h"

#include <spdlog/fmt/fmt.h>

namespace winnow::run {

nlohmann::json profile_json(const kernels::Profile& profile, const engine::Ceilings& ceilings) {
  nlohmann::json json = {{"total_seconds", profile.total_seconds},
                         {"idle_seconds", profile.idle_seconds},
                         {"ceiling_flop_per_second", ceilings.flop_per_second},
                         {"ceiling_bytes_per_second", ceilings.bytes_per_second},
                         {"operations", nlohmann::json::array()}};
  for (const kernels::OperationProfile& operation : profile.operations) {
    json["operations"].push_back({{"name", operation.name},
                                  {"calls", operation.calls},
                                  {"seconds", operation.seconds},
                                  {"flop", operation.flop},
                                  {"bytes", operation.bytes}});
  }
  return json;
}

std::string profile_table(const kernels::Profile& profile, const engine::Ceilings& ceilings) {
  const double total = profile.total_seconds > 0.0 ? profile.total_seconds : 1.0;
  std::string table = fmt::format("{:<20} {:>9} {:>11} {:>7} {:>16} {:>11}\n", "operation", "calls", "seconds", "share",
                                  "rate", "of ceiling");
  for (const kernels::OperationProfile& operation : profile.operations) {
    const bool computes = operation.flop > 0.0;
    const double rate = (computes ? operation.flop : operation.bytes) / operation.seconds;
    const double ceiling = computes ? ceilings.flop_per_second : ceilings.bytes_per_second;
    table += fmt::format("{:<20} {:>9} {:>11.4f} {:>6.1f}% {:>9.1f} {:<6} {:>10.1f}%\n", operation.name,
                         operation.calls, operation.seconds, 100.0 * operation.seconds / total,
                         rate / (computes ? 1e12 : 1e9), computes ? "TFLOP/s" : "GB/s", 100.0 * rate / ceiling);
  }
  table += fmt::format("{:<20} {:>9} {:>11.4f} {:>6.1f}%\n", "idle", "", profile.idle_seconds,
                       100.0 * profile.idle_seconds / total);
  table += fmt::format("total {:.4f} s; ceilings: a large product {:.1f} TFLOP/s, a large copy {:.1f} GB/s\n",
                       profile.total_seconds, ceilings.flop_per_second / 1e12, ceilings.bytes_per_second / 1e9);
  return table;
}

}  // namespace winnow::run
