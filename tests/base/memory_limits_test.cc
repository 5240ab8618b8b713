// Limits of memory and processor, read from made-up systems.
#include "base/memory_limits.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/scratch.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20;

class Limits : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const fs::path file = root() / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void write(const std::string& path, int64_t value) { write(path, std::to_string(value) + "\n"); }
  void mount_two(const std::string& point = "/sys/fs/cgroup", const std::string& group = "/") {
    write("proc/self/mountinfo", "25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n31 25 0:28 " + group + " " + point +
                                     " rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  const fs::path& root() const { return scratch_.path(); }

 private:
  ScratchDirectory scratch_;
};

TEST_F(Limits, AreNoneWhereNothingIsThere) {
  EXPECT_EQ(group_memory_bytes(root()), kUnlimited);
  EXPECT_EQ(group_cores(root()), 0.0);
}

TEST_F(Limits, OfAJobHoldForItsTask) {
  // As Slurm does it: the limit is the job's, and the process sits four groups below.
  const std::string job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7";
  mount_two();
  write("proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n");
  write(job + "/memory.max", 1024 * kMiB);
  write(job + "/memory.current", 100 * kMiB);
  write(job + "/step_0/user/task_0/memory.max", "max\n");
  write(job + "/step_0/user/task_0/memory.current", 90 * kMiB);
  write(job + "/cpu.max", "150000 100000\n");
  write(job + "/step_0/user/task_0/cpu.max", "max 100000\n");
  EXPECT_EQ(group_memory_bytes(root()), 924 * kMiB);
  EXPECT_DOUBLE_EQ(group_cores(root()), 1.5);
}

TEST_F(Limits, TheLeastOfNestedGroupsCounts) {
  mount_two();
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/memory.max", 300 * kMiB);
  write("sys/fs/cgroup/a/b/memory.current", 50 * kMiB);
  write("sys/fs/cgroup/a/memory.max", 1000 * kMiB);
  write("sys/fs/cgroup/a/memory.current", 900 * kMiB);  // another group below uses most of it
  write("sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
  write("sys/fs/cgroup/a/cpu.max", "200000 100000\n");
  EXPECT_EQ(group_memory_bytes(root()), 100 * kMiB);
  EXPECT_DOUBLE_EQ(group_cores(root()), 2.0);
  write("sys/fs/cgroup/a/memory.current", 1100 * kMiB);
  EXPECT_EQ(group_memory_bytes(root()), 0);
}

TEST_F(Limits, PagesOfFilesCountAsFree) {
  mount_two();
  write("proc/self/cgroup", "0::/a\n");
  write("sys/fs/cgroup/a/memory.max", 1000 * kMiB);
  write("sys/fs/cgroup/a/memory.current", 990 * kMiB);
  write("sys/fs/cgroup/a/memory.stat",
        "anon 104857600\nfile 838860800\nshmem 1000\ninactive_file 734003200\n"
        "active_file 104857600\nslab_reclaimable 10485760\n");
  EXPECT_EQ(group_memory_bytes(root()), 1000 * kMiB - (990 - 700 - 100 - 10) * kMiB);
}

TEST_F(Limits, AGroupIsSlowedDownAboveMemoryHigh) {
  mount_two();
  write("proc/self/cgroup", "0::/a\n");
  write("sys/fs/cgroup/a/memory.max", 1000 * kMiB);
  write("sys/fs/cgroup/a/memory.high", 600 * kMiB);
  write("sys/fs/cgroup/a/memory.current", 0);
  EXPECT_EQ(group_memory_bytes(root()), 600 * kMiB);
}

TEST_F(Limits, OfVersionOne) {
  write("proc/self/mountinfo",
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n");
  write("proc/self/cgroup", "5:memory:/slurm/uid_0/job_7\n4:cpuset:/other\n2:cpu,cpuacct:/slurm/uid_0/job_7\n0::/\n");
  const std::string memory = "sys/fs/cgroup/memory/slurm/uid_0";
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", int64_t{9223372036854771712});
  write(memory + "/memory.limit_in_bytes", 500 * kMiB);
  write(memory + "/memory.usage_in_bytes", 400 * kMiB);
  write(memory + "/memory.stat", "cache 1\ntotal_cache 2\ninactive_file 5\ntotal_inactive_file 209715200\n");
  write(memory + "/job_7/memory.limit_in_bytes", int64_t{9223372036854771712});
  write("sys/fs/cgroup/cpu,cpuacct/slurm/uid_0/job_7/cpu.cfs_quota_us", -1);
  write("sys/fs/cgroup/cpu,cpuacct/slurm/uid_0/cpu.cfs_quota_us", 300000);
  write("sys/fs/cgroup/cpu,cpuacct/slurm/uid_0/cpu.cfs_period_us", 100000);
  EXPECT_EQ(group_memory_bytes(root()), 300 * kMiB);
  EXPECT_DOUBLE_EQ(group_cores(root()), 3.0);
}

TEST_F(Limits, OfAContainerThatSeesItsGroupAsTheRoot) {
  // The path in /proc is the host's, and is not there. Of both kinds: with the mount's root named, and without.
  for (const char* group : {"/docker/0123", "/"}) {
    mount_two("/sys/fs/cgroup", group);
    write("proc/self/cgroup", "0::/docker/0123\n");
    write("sys/fs/cgroup/memory.max", 256 * kMiB);
    write("sys/fs/cgroup/memory.current", 6 * kMiB);
    EXPECT_EQ(group_memory_bytes(root()), 250 * kMiB) << group;
  }
  mount_two("/sys/fs/cgroup", "/docker/0123");
  write("proc/self/cgroup", "0::/docker/0123/inner\n");
  write("sys/fs/cgroup/inner/memory.max", 10 * kMiB);
  EXPECT_EQ(group_memory_bytes(root()), 10 * kMiB);
  write("proc/self/cgroup", "0::/../sibling\n");  // of a process outside the name space
  EXPECT_EQ(group_memory_bytes(root()), 250 * kMiB);
}

TEST_F(Limits, OfAMountInAnotherPlace) {
  mount_two("/run/groups");
  write("proc/self/cgroup", "0::/a:b\n");  // a name may hold a colon
  write("run/groups/a:b/memory.max", 64 * kMiB);
  EXPECT_EQ(group_memory_bytes(root()), 64 * kMiB);
}

TEST_F(Limits, OfTheProcessLeaveWhatItHasNotMapped) {
  write("proc/self/status", "Name:\twinnow\nVmPeak:\t 900 kB\nVmSize:\t  512000 kB\nVmData:\t  102400 kB\n");
  EXPECT_EQ(unused_address_space_bytes({}, root()), kUnlimited);
  EXPECT_EQ(unused_address_space_bytes({.address_space = 600 * kMiB}, root()), 100 * kMiB);
  EXPECT_EQ(unused_address_space_bytes({.address_space = 600 * kMiB, .data = 150 * kMiB}, root()), 50 * kMiB);
  EXPECT_EQ(unused_address_space_bytes({.address_space = 1}, root()), 0);
}

}  // namespace
}  // namespace winnow
