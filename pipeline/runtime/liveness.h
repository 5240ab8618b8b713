// Notices that a process of this host has died.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "pipeline/runtime/process.h"

namespace winnow::runtime {

// A process by which others of the same host know it.
struct ProcessId {
  int64_t number = 0;
  std::string name_space;  // of process numbers, "" when unknown: equal ones number processes alike

  static ProcessId own();
  std::string to_text() const;
  static ProcessId from_text(const std::string& text);
};

// A thread that looks at other processes every second.
class LivenessMonitor {
 public:
  struct Peer {
    std::string rank;
    int64_t process = 0;
  };
  // Starts the thread. It calls on_death once, a grace time after a peer has died, and looks at the others no more.
  // Peers that cannot be seen now are left out. With `turn` the watches of several processes speak one after another:
  // the first of them ends the job.
  LivenessMonitor(std::vector<Peer> peers, int turn, std::function<void(const Peer&)> on_death);
  LivenessMonitor(const LivenessMonitor&) = delete;
  LivenessMonitor& operator=(const LivenessMonitor&) = delete;
  ~LivenessMonitor();

 private:
  void watch();
  bool wait(std::chrono::milliseconds time);  // whether the watch goes on after it

  std::vector<Peer> peers_;
  const int turn_;
  std::function<void(const Peer&)> on_death_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace winnow::runtime
