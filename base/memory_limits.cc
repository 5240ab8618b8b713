#include "base/memory_limits.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

namespace winnow {
namespace fs = std::filesystem;
namespace {

// Version 1 says "no limit" with the largest multiple of a page.
constexpr int64_t kLeastUnlimited = int64_t{1} << 60;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

bool has_part(const std::string& list, const std::string& part) {
  const std::vector<std::string> parts = split(list, ',');
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

enum class Version { kOne, kTwo };

// A place where a hierarchy of groups is mounted.
struct Mount {
  Version version = Version::kTwo;
  fs::path point;
  std::string group = "/";  // that is its root: in a container without a name space of groups, not the topmost
};

std::vector<Mount> find_mounts(const std::string& controller, const fs::path& root) {
  std::vector<Mount> mounts;
  std::ifstream in(root / "proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    // number, parent, device, root, mount point, options and tags, "-", type, source, options of the file system
    const std::size_t dash = line.find(" - ");
    const std::vector<std::string> before = split(line.substr(0, dash), ' ');
    const std::vector<std::string> after =
        dash == std::string::npos ? std::vector<std::string>{} : split(line.substr(dash + 3), ' ');
    if (before.size() < 5 || after.size() < 3) continue;
    if (after[0] == "cgroup2") {
      mounts.push_back({Version::kTwo, before[4], before[3]});
    } else if (after[0] == "cgroup" && has_part(after[2], controller)) {
      mounts.push_back({Version::kOne, before[4], before[3]});
    }
  }
  // Where they always are, should another mount hide what is listed.
  mounts.push_back({Version::kTwo, "/sys/fs/cgroup"});
  mounts.push_back({Version::kOne, "/sys/fs/cgroup/" + controller});
  return mounts;
}

// The group of this process in the hierarchy of a version.
std::optional<std::string> own_group(Version version, const std::string& controller, const fs::path& root) {
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    // number, controllers (none in version 2), path: which may hold colons
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version == Version::kTwo ? controllers.empty() : has_part(controllers, controller)) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

// A group as a path below the mount. Groups outside of what is mounted here are not seen: then it is the mount itself.
fs::path below(const Mount& mount, const std::string& group) {
  const fs::path path = fs::path(group).lexically_relative(mount.group);
  const bool is_inside = !path.empty() && *path.begin() != "..";
  fs::path inside = is_inside ? path : fs::path(group).relative_path();
  if (std::find(inside.begin(), inside.end(), "..") != inside.end()) return {};
  return inside == "." ? fs::path() : inside;
}

std::optional<int64_t> read_number(const fs::path& path) {
  std::ifstream in(path);
  int64_t value = 0;
  if (!(in >> value)) return std::nullopt;  // "max", too
  return value;
}

std::map<std::string, int64_t> read_counters(const fs::path& path) {
  std::map<std::string, int64_t> counters;
  std::ifstream in(path);
  std::string name;
  for (int64_t value = 0; in >> name >> value;) counters[name] = value;
  return counters;
}

// limit - (used - what can be taken back), none without a limit.
std::optional<int64_t> memory_left(const fs::path& folder) {
  std::optional<int64_t> limit;
  for (const char* name : {"memory.max", "memory.high", "memory.limit_in_bytes"}) {
    const auto value = read_number(folder / name);
    if (value && *value < kLeastUnlimited) limit = std::min(limit.value_or(*value), *value);
  }
  if (!limit) return std::nullopt;
  auto used = read_number(folder / "memory.current");
  std::vector<const char*> reclaimable = {"active_file", "inactive_file", "slab_reclaimable"};
  if (!used) {
    used = read_number(folder / "memory.usage_in_bytes");
    reclaimable = {"total_active_file", "total_inactive_file"};
  }
  std::map<std::string, int64_t> counters = read_counters(folder / "memory.stat");
  int64_t taken = used.value_or(0);
  for (const char* name : reclaimable) taken -= counters[name];
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, taken));
}

std::optional<double> cores_of(const fs::path& folder) {
  double quota = 0.0;
  double period = 0.0;
  if (std::ifstream in(folder / "cpu.max"); in) {
    if (!(in >> quota >> period)) return std::nullopt;  // "max"
  } else {
    quota = static_cast<double>(read_number(folder / "cpu.cfs_quota_us").value_or(-1));
    period = static_cast<double>(read_number(folder / "cpu.cfs_period_us").value_or(0));
  }
  if (quota <= 0.0 || period <= 0.0) return std::nullopt;
  return quota / period;
}

int64_t limit_of(__rlimit_resource_t resource) {
  struct rlimit limit {};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  return static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(kUnlimited)));
}

// Folders that may hold the limits of `controller` ("memory", "cpu") for this process: of its own group and of all
// above it, each of which holds for it, up to the root that is visible here. A container often sees its own group as
// the root, and folders that /proc names may not be there.
std::vector<fs::path> group_folders(const std::string& controller, const fs::path& root) {
  std::vector<fs::path> folders;
  for (const Mount& mount : find_mounts(controller, root)) {
    const auto group = own_group(mount.version, controller, root);
    if (!group) continue;
    const fs::path top = root / mount.point.relative_path();
    for (fs::path group_below = below(mount, *group);; group_below = group_below.parent_path()) {
      const fs::path folder = group_below.empty() ? top : top / group_below;
      if (std::find(folders.begin(), folders.end(), folder) == folders.end()) folders.push_back(folder);
      if (group_below.empty()) break;
    }
  }
  return folders;
}

}  // namespace

int64_t group_memory_bytes(const fs::path& root) {
  int64_t least = kUnlimited;
  for (const fs::path& folder : group_folders("memory", root)) {
    least = std::min(least, memory_left(folder).value_or(kUnlimited));
  }
  return least;
}

double group_cores(const fs::path& root) {
  double least = 0.0;
  for (const fs::path& folder : group_folders("cpu", root)) {
    const auto cores = cores_of(folder);
    if (cores && (least == 0.0 || *cores < least)) least = *cores;
  }
  return least;
}

ProcessLimits ProcessLimits::own() { return {.address_space = limit_of(RLIMIT_AS), .data = limit_of(RLIMIT_DATA)}; }

int64_t unused_address_space_bytes(const ProcessLimits& limits, const fs::path& root) {
  const fs::path status = root / "proc/self/status";
  const auto left = [&](int64_t limit, const char* key) {
    if (limit == kUnlimited) return kUnlimited;
    return std::max<int64_t>(0, limit - std::max<int64_t>(0, proc_kilobytes(status, key)));
  };
  return std::min(left(limits.address_space, "VmSize"), left(limits.data, "VmData"));
}

int64_t proc_kilobytes(const fs::path& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key + ":", 0) != 0) continue;
    std::istringstream fields(line.substr(key.size() + 1));
    int64_t value = 0;
    if (fields >> value) return value * 1024;
  }
  return -1;
}

}  // namespace winnow
