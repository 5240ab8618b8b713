#include "pipeline/runtime/device_assignment.h"

#include <map>
#include <set>

namespace winnow::runtime {

std::vector<GpuChoice> choose_gpus(const std::vector<std::vector<std::string>>& visible) {
  std::vector<GpuChoice> choices(visible.size());
  std::set<std::string> all;
  std::map<std::string, int> n_takers;
  for (std::size_t r = 0; r < visible.size(); ++r) {
    const std::vector<std::string>& gpus = visible[r];
    all.insert(gpus.begin(), gpus.end());
    if (gpus.empty()) continue;
    const std::size_t own = r % gpus.size();
    std::size_t device = own;
    if (n_takers.contains(gpus[own])) {
      for (std::size_t d = 0; d < gpus.size(); ++d) {
        if (n_takers.contains(gpus[d])) continue;
        device = d;
        break;
      }
    }
    choices[r].device = static_cast<int>(device);
    ++n_takers[gpus[device]];
  }
  for (std::size_t r = 0; r < visible.size(); ++r) {
    choices[r].host_ranks = static_cast<int>(visible.size());
    choices[r].host_gpus = static_cast<int>(all.size());
    if (choices[r].device >= 0) {
      choices[r].n_sharers = n_takers[visible[r][static_cast<std::size_t>(choices[r].device)]];
    }
  }
  return choices;
}

std::vector<std::pair<std::string, std::string>> nccl_environment(const NcclPlace& place) {
  std::vector<std::pair<std::string, std::string>> settings;
  // NCCL refuses two ranks on one GPU of one host: so each of them is a host of its own, and they talk over sockets.
  if (place.shares_gpu) {
    settings.emplace_back("NCCL_HOSTID", place.host + "-rank-" + std::to_string(place.rank));
  }
  // NCCL looks for a network for that and passes over the loopback, which a machine without one has alone.
  if (place.is_any_shared && place.is_one_host && !place.interface_is_given) {
    settings.emplace_back("NCCL_SOCKET_IFNAME", "lo");
  }
  return settings;
}

}  // namespace winnow::runtime
