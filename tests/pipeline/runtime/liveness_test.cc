// The watch over processes of the same host.
#include "pipeline/runtime/liveness.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <future>
#include <thread>

namespace winnow::runtime {
namespace {

// A process that sleeps until it is killed; ended and looked at on destruction.
class Sleeper {
 public:
  Sleeper() : pid_(fork()) {
    if (pid_ == 0) {
      while (true) pause();
    }
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  ~Sleeper() {
    kill();
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  void kill() const { ::kill(pid_, SIGKILL); }

 private:
  pid_t pid_;
};

TEST(ProcessId, SurvivesText) {
  const ProcessId own = ProcessId::own();
  EXPECT_EQ(own.number, getpid());
  const ProcessId again = ProcessId::from_text(own.to_text());
  EXPECT_EQ(again.number, own.number);
  EXPECT_EQ(again.name_space, own.name_space);
  EXPECT_EQ(ProcessId::from_text("17 ").name_space, "");
}

TEST(LivenessMonitor, KnowsTheLivingFromTheDead) {
  EXPECT_TRUE(is_running(getpid()));
  const Sleeper sleeper;
  EXPECT_TRUE(is_running(sleeper.pid()));
  ::kill(sleeper.pid(), SIGSTOP);
  EXPECT_TRUE(is_running(sleeper.pid()));
  sleeper.kill();
  // Its parent, this process, has not waited for it: it is there, but does not run.
  for (int i = 0; i < 100000 && is_running(sleeper.pid()); ++i) usleep(1000);
  EXPECT_FALSE(is_running(sleeper.pid()));
}

TEST(LivenessMonitor, TellsOfADeath) {
  const Sleeper first;
  const Sleeper second;
  std::promise<std::string> dead;
  auto rank = dead.get_future();
  const LivenessMonitor watch({{"3", first.pid()}, {"7", second.pid()}}, 0,
                              [&](const LivenessMonitor::Peer& peer) { dead.set_value(peer.rank); });
  EXPECT_EQ(rank.wait_for(std::chrono::milliseconds(1200)), std::future_status::timeout);
  second.kill();
  ASSERT_EQ(rank.wait_for(std::chrono::minutes(10)), std::future_status::ready);
  EXPECT_EQ(rank.get(), "7");
}

TEST(LivenessMonitor, IsSilentAboutADeathThatItDoesNotOutlive) {
  std::atomic<bool> spoke = false;
  const auto begin = std::chrono::steady_clock::now();
  {
    const Sleeper sleeper;
    const LivenessMonitor watch({{"1", sleeper.pid()}}, 0,
                                [&](const LivenessMonitor::Peer& /*peer*/) { spoke = true; });
    sleeper.kill();
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  }
  EXPECT_FALSE(spoke);
  // One that waited for its grace time would have taken a second and three more.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(3900));
}

TEST(LivenessMonitor, LeavesOutWhatItCannotSee) {
  std::atomic<bool> spoke = false;
  const LivenessMonitor watch({{"1", int64_t{1} << 40}}, 0,
                              [&](const LivenessMonitor::Peer& /*peer*/) { spoke = true; });
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  EXPECT_FALSE(spoke);
}

}  // namespace
}  // namespace winnow::runtime
