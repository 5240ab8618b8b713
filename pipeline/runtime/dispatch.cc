#include "pipeline/runtime/dispatch.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "pipeline/runtime/mpi_check.h"

namespace winnow::runtime {
namespace {

// Messages to rank 0 are two numbers: what, and a unit or a StopKind; then seconds in milliseconds. Answers are one.
enum Tag : int { kTagToServer = 1, kTagUnit = 2, kTagStop = 3, kTagVerdict = 4 };
enum Request : int64_t { kNextUnit, kUnitDone, kAskStop, kClaimError, kNoMore };
constexpr int64_t kNoUnit = -1;
using Message = std::array<int64_t, 3>;

void send_to_server(Request request, int64_t value, double seconds) {
  const Message message{request, value, static_cast<int64_t>(seconds * 1e3)};
  WINNOW_MPI(MPI_Send(message.data(), static_cast<int>(message.size()), MPI_INT64_T, 0, kTagToServer, MPI_COMM_WORLD));
}

}  // namespace

Dispatcher::Dispatcher(const MpiSession& session, int64_t n_units, OnDone on_done)
    : session_(session), n_units_(n_units), on_done_(std::move(on_done)) {
  if (!session.is_root() || session.size() == 1) return;
  active_peers_ = session.size() - 1;
  peer_active_.assign(static_cast<std::size_t>(session.size()), true);
  server_ = std::thread([this] {
    try {
      serve();
    } catch (...) {
      // Peers would wait for answers for ever, and rank 0's worker may be deep in a unit: end the job here.
      session_.end_job();
    }
  });
}

Dispatcher::~Dispatcher() {
  if (server_.joinable()) server_.join();
}

std::optional<int64_t> Dispatcher::next() {
  if (session_.is_root()) {
    if (stop_.load() != 0) return std::nullopt;
    const int64_t unit = next_.fetch_add(1);
    return unit < n_units_ ? std::optional(unit) : std::nullopt;
  }
  send_to_server(kNextUnit, 0, 0.0);
  int64_t unit = kNoUnit;
  MPI_Request request = MPI_REQUEST_NULL;
  WINNOW_MPI(MPI_Irecv(&unit, 1, MPI_INT64_T, 0, kTagUnit, MPI_COMM_WORLD, &request));
  for (int done = 0; done == 0;) {
    WINNOW_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  take_stop_notes();
  return unit == kNoUnit ? std::nullopt : std::optional(unit);
}

void Dispatcher::report_done(int64_t unit, double seconds) {
  if (!session_.is_root()) {
    send_to_server(kUnitDone, unit, seconds);
    return;
  }
  const std::lock_guard lock(mutex_);
  on_done_(unit, seconds);
}

StopKind Dispatcher::poll_stop(StopKind own) {
  if (static_cast<int>(own) > told_stop_) {
    told_stop_ = static_cast<int>(own);
    if (session_.is_root()) {
      spread_stop(own);
    } else {
      stop_ = std::max(stop_.load(), told_stop_);
      send_to_server(kAskStop, told_stop_, 0.0);
    }
  }
  if (!session_.is_root()) take_stop_notes();
  if (session_.is_root()) {
    const std::lock_guard lock(mutex_);
    on_done_(std::nullopt, 0.0);
  }
  return static_cast<StopKind>(stop_.load());
}

void Dispatcher::take_stop_notes() {
  int is_there = 0;
  while (true) {
    WINNOW_MPI(MPI_Iprobe(0, kTagStop, MPI_COMM_WORLD, &is_there, MPI_STATUS_IGNORE));
    if (is_there == 0) return;
    int64_t kind = 0;
    WINNOW_MPI(MPI_Recv(&kind, 1, MPI_INT64_T, 0, kTagStop, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
    stop_ = std::max(stop_.load(), static_cast<int>(kind));
  }
}

void Dispatcher::claim_error() {
  using std::chrono::milliseconds;
  constexpr milliseconds kAnswerWithin{2000};
  constexpr milliseconds kEndWithin{30000};
  if (session_.size() == 1) return;
  if (session_.is_root()) {
    if (!error_is_claimed_.exchange(true)) return;
  } else {
    send_to_server(kClaimError, 0, 0.0);
    int64_t may_speak = 1;
    MPI_Request request = MPI_REQUEST_NULL;
    WINNOW_MPI(MPI_Irecv(&may_speak, 1, MPI_INT64_T, 0, kTagVerdict, MPI_COMM_WORLD, &request));
    int done = 0;
    for (auto waited = milliseconds(0); done == 0 && waited < kAnswerWithin; waited += milliseconds(1)) {
      WINNOW_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
      if (done == 0) std::this_thread::sleep_for(milliseconds(1));
    }
    if (done == 0 || may_speak != 0) return;
  }
  std::this_thread::sleep_for(kEndWithin);
}

void Dispatcher::finish() {
  if (!session_.is_root()) send_to_server(kNoMore, 0, 0.0);
  if (server_.joinable()) server_.join();
}

// Rank 0, from its worker or its server thread: the news goes out with the server's next round.
void Dispatcher::spread_stop(StopKind kind) {
  int known = stop_.load();
  while (static_cast<int>(kind) > known && !stop_.compare_exchange_weak(known, static_cast<int>(kind))) {
  }
}

void Dispatcher::serve() {
  int spread = 0;
  auto last_tick = std::chrono::steady_clock::now();
  while (active_peers_ > 0) {
    const bool was_message = serve_one();
    if (const int kind = stop_.load(); kind > spread) {
      spread = kind;
      const int64_t note = kind;
      for (int peer = 1; peer < session_.size(); ++peer) {
        if (!peer_active_[static_cast<std::size_t>(peer)]) continue;
        WINNOW_MPI(MPI_Send(&note, 1, MPI_INT64_T, peer, kTagStop, MPI_COMM_WORLD));
      }
    }
    if (was_message) continue;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    if (const auto now = std::chrono::steady_clock::now(); now - last_tick > std::chrono::seconds(1)) {
      last_tick = now;
      const std::lock_guard lock(mutex_);
      on_done_(std::nullopt, 0.0);
    }
  }
}

bool Dispatcher::serve_one() {
  int is_there = 0;
  MPI_Status status;
  WINNOW_MPI(MPI_Iprobe(MPI_ANY_SOURCE, kTagToServer, MPI_COMM_WORLD, &is_there, &status));
  if (is_there == 0) return false;
  Message message{};
  WINNOW_MPI(MPI_Recv(message.data(), static_cast<int>(message.size()), MPI_INT64_T, status.MPI_SOURCE, kTagToServer,
                      MPI_COMM_WORLD, &status));
  const auto peer = static_cast<std::size_t>(status.MPI_SOURCE);
  if (message[0] == kUnitDone) {
    const std::lock_guard lock(mutex_);
    on_done_(message[1], static_cast<double>(message[2]) * 1e-3);
  } else if (message[0] == kAskStop) {
    spread_stop(static_cast<StopKind>(message[1]));
  } else if (message[0] == kNoMore) {
    peer_active_[peer] = false;
    --active_peers_;
  } else if (message[0] == kClaimError) {
    const int64_t may_speak = error_is_claimed_.exchange(true) ? 0 : 1;
    WINNOW_MPI(MPI_Send(&may_speak, 1, MPI_INT64_T, status.MPI_SOURCE, kTagVerdict, MPI_COMM_WORLD));
  } else {
    int64_t unit = stop_.load() != 0 ? kNoUnit : next_.fetch_add(1);
    if (unit >= n_units_) unit = kNoUnit;
    WINNOW_MPI(MPI_Send(&unit, 1, MPI_INT64_T, status.MPI_SOURCE, kTagUnit, MPI_COMM_WORLD));
  }
  return true;
}

}  // namespace winnow::runtime
