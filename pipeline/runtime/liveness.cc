#include "pipeline/runtime/liveness.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

namespace winnow::runtime {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kInterval{1000};
// After a death: a launcher that ends the job itself does so within this time, with better words; and a peer that has
// merely finished is followed by this process, which then stops the watch.
constexpr milliseconds kGrace{3000};
constexpr milliseconds kTurn{250};

}  // namespace

ProcessId ProcessId::own() {
  std::array<char, 64> link{};
  const ssize_t length = readlink("/proc/self/ns/pid", link.data(), link.size());
  return {.number = getpid(),
          .name_space = length <= 0 ? "" : std::string(link.data(), static_cast<std::size_t>(length))};
}

std::string ProcessId::to_text() const { return std::to_string(number) + " " + name_space; }

ProcessId ProcessId::from_text(const std::string& text) {
  const std::size_t space = text.find(' ');
  return {.number = std::strtoll(text.c_str(), nullptr, 10),
          .name_space = space == std::string::npos ? "" : text.substr(space + 1)};
}

LivenessMonitor::LivenessMonitor(std::vector<Peer> peers, int turn, std::function<void(const Peer&)> on_death)
    : peers_(std::move(peers)), turn_(turn), on_death_(std::move(on_death)) {
  std::erase_if(peers_, [](const Peer& peer) { return !is_running(peer.process); });
  if (!peers_.empty()) thread_ = std::thread([this] { watch(); });
}

LivenessMonitor::~LivenessMonitor() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool LivenessMonitor::wait(milliseconds time) {
  std::unique_lock lock(mutex_);
  return !stopped_.wait_for(lock, time, [this] { return stop_; });
}

void LivenessMonitor::watch() {
  while (wait(kInterval)) {
    const auto dead = std::ranges::find_if(peers_, [](const Peer& peer) { return !is_running(peer.process); });
    if (dead == peers_.end()) continue;
    if (wait(kGrace + turn_ * kTurn)) on_death_(*dead);
    return;
  }
}

}  // namespace winnow::runtime
