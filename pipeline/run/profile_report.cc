#include "pipeline/run/profile_report.h"

#include <spdlog/fmt/fmt.h>

#include <numeric>

#include "base/terminal_table.h"
#include "pipeline/runtime/timeline.h"

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

nlohmann::json timeline_json(const std::vector<std::vector<double>>& ranks) {
  nlohmann::json json = {{"parts", nlohmann::json::array()}, {"total_seconds", nlohmann::json::array()}};
  for (std::size_t part = 0; part < runtime::kParts; ++part) {
    const auto& [name, what] = runtime::part_names()[part];
    nlohmann::json entry = {{"name", name}, {"what", what}, {"seconds", nlohmann::json::array()}};
    for (const std::vector<double>& rank : ranks) entry["seconds"].push_back(rank[part]);
    json["parts"].push_back(std::move(entry));
  }
  for (const std::vector<double>& rank : ranks) {
    json["total_seconds"].push_back(std::accumulate(rank.begin(), rank.end(), 0.0));
  }
  return json;
}

std::string profile_table(const kernels::Profile& profile, const engine::Ceilings& ceilings) {
  const double total = profile.total_seconds > 0.0 ? profile.total_seconds : 1.0;
  constexpr auto kRight = TerminalTable::Column::Align::kRight;
  TerminalTable table({{.width = 20}, {kRight, 9}, {kRight, 11}, {kRight, 7}, {kRight, 16}, {kRight, 11}}, 1);
  table.add({"operation", "calls", "seconds", "share", "rate", "of ceiling"});
  const auto share = [&](double part, double whole) { return number(100.0 * part / whole, "{:.1f}%"); };
  for (const kernels::OperationProfile& operation : profile.operations) {
    const bool computes = operation.flop > 0.0;
    const double rate = (computes ? operation.flop : operation.bytes) / operation.seconds;
    const double ceiling = computes ? ceilings.flop_per_second : ceilings.bytes_per_second;
    table.add({operation.name, std::to_string(operation.calls), number(operation.seconds, "{:.4f}"),
               share(operation.seconds, total),
               fmt::format("{:>9.1f} {:<6}", rate / (computes ? 1e12 : 1e9), computes ? "TFLOP/s" : "GB/s"),
               share(rate, ceiling)});
  }
  table.add({"idle", "", number(profile.idle_seconds, "{:.4f}"), share(profile.idle_seconds, total)});
  return table.text() +
         fmt::format("total {:.4f} s; ceilings: a large product {:.1f} TFLOP/s, a large copy {:.1f} GB/s\n",
                     profile.total_seconds, ceilings.flop_per_second / 1e12, ceilings.bytes_per_second / 1e9);
}

}  // namespace winnow::run
