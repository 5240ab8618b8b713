#include "base/node.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>

#include "base/memory_limits.h"
#include "base/strings.h"

namespace winnow {

std::vector<int> affinity_cores() {
  std::vector<int> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

int64_t available_memory_bytes() {
  const int64_t of_host = proc_kilobytes("/proc/meminfo", "MemAvailable");
  const int64_t of_groups = group_memory_bytes();
  return std::max<int64_t>(0, of_host < 0 && of_groups < kUnlimited ? of_groups : std::min(of_host, of_groups));
}

int64_t peak_resident_bytes() {
  const int64_t peak = proc_kilobytes("/proc/self/status", "VmHWM");
  if (peak >= 0) return peak;
  struct rusage usage {};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<int64_t>(usage.ru_maxrss) * 1024 : 0;
}

int64_t free_disk_bytes(const std::string& path) {
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) != 0) return -1;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string line;
  for (std::string word; std::getline(in, word, '\0');) {
    if (!line.empty()) line += ' ';
    line += shell_word(word);
  }
  return line;
}

int share_of_cores(const std::vector<std::vector<int>>& masks, int local_rank, double quota_cores) {
  const auto& mine = masks[static_cast<std::size_t>(local_rank)];
  int sharers = 0;
  for (const auto& mask : masks) {
    const bool shares = std::any_of(mask.begin(), mask.end(),
                                    [&](int core) { return std::find(mine.begin(), mine.end(), core) != mine.end(); });
    sharers += shares ? 1 : 0;
  }
  int threads = static_cast<int>(mine.size()) / std::max(1, sharers);
  if (quota_cores > 0.0) {
    const double share = quota_cores / static_cast<double>(masks.size());
    threads = std::min(threads, static_cast<int>(std::floor(share + 1e-6)));
  }
  return std::max(1, threads);
}

}  // namespace winnow
