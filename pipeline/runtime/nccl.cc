#include "pipeline/runtime/nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <thread>
#include <type_traits>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"

namespace winnow::runtime {
namespace {

using std::chrono::seconds;

constexpr seconds kDefaultDeadline{120};
// For leaving a communicator, in agreement or not.
constexpr seconds kLeaveWithin{10};
// GPU memory through which sums go, bytes.
constexpr int64_t kSumBytes = 4 << 20;

seconds deadline() {
  const char* text = std::getenv("WINNOW_NCCL_DEADLINE");
  const long value = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return value > 0 ? seconds(value) : kDefaultDeadline;
}

// Runs `step`, which must not throw and must own all that it uses, in another thread; whether it was over in time. One
// that hangs is left behind.
bool run_within(seconds limit, std::function<void()> step) {
  const auto done = std::make_shared<std::promise<void>>();
  std::future<void> is_done = done->get_future();
  std::thread([done, step = std::move(step)] {
    step();
    done->set_value();
  }).detach();
  return is_done.wait_for(limit) == std::future_status::ready;
}

// ncclCommAbort waits for the other ranks of the host to abort as well, which a dead one does not.
bool abort_comm(ncclComm_t comm) {
  return run_within(kLeaveWithin, [comm] { static_cast<void>(ncclCommAbort(comm)); });
}

bool finalize_comm(ncclComm_t comm) {
  return run_within(kLeaveWithin, [comm] {
    ncclResult_t status = ncclCommFinalize(comm);
    while (status == ncclSuccess || status == ncclInProgress) {
      ncclResult_t state = ncclSuccess;
      status = ncclCommGetAsyncError(comm, &state);
      if (status == ncclSuccess) status = state;
      if (status == ncclSuccess) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    static_cast<void>(status == ncclSuccess ? ncclCommDestroy(comm) : ncclCommAbort(comm));
  });
}

struct Free {
  void operator()(cudaStream_t stream) const { static_cast<void>(cudaStreamDestroy(stream)); }
  void operator()(cudaEvent_t event) const { static_cast<void>(cudaEventDestroy(event)); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, Free>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Free>;

Stream make_stream() {
  cudaStream_t stream = nullptr;
  WINNOW_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  WINNOW_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

}  // namespace

// Broadcasts and sums have a stream of their own, which follows the backend's: if they stood in the backend's, the copy
// of the next weights would wait behind a peer that may never answer, in a wait that has no deadline.
struct NcclComm::State {
  explicit State(kernels::Ops& with) : ops(dynamic_cast<cuda::CudaBackend&>(with)) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (comm != nullptr) leave(std::uncaught_exceptions() == 0);
  }

  cuda::CudaBackend& ops;
  Stream stream = make_stream();
  Event backend_is_there = make_event();
  std::array<Event, 2> broadcast_is_over{make_event(), make_event()};
  int64_t n_broadcasts = 0;
  std::unique_ptr<kernels::Buffer> sum_buffer;
  ncclComm_t comm = nullptr;

  // Leaves the communicator. What it may still use when that takes too long is not freed: the process ends soon.
  void leave(bool in_agreement) {
    const ncclComm_t left = std::exchange(comm, nullptr);
    if (in_agreement ? finalize_comm(left) : abort_comm(left)) return;
    spdlog::warn("NCCL did not {} within {} s", in_agreement ? "finish" : "abort", kLeaveWithin.count());
    static_cast<void>(stream.release());
    static_cast<void>(backend_is_there.release());
    for (Event& event : broadcast_is_over) static_cast<void>(event.release());
    static_cast<void>(sum_buffer.release());
  }

  [[noreturn]] void give_up(const std::string& what, const std::string& words) {
    std::string last = comm == nullptr ? "" : ncclGetLastError(comm);
    std::replace(last.begin(), last.end(), '\n', ' ');
    if (comm != nullptr) leave(false);
    fail(ExitCode::kInternal, "NCCL's " + what + " failed: " + words + (last.empty() ? "" : " (" + last + ")") +
                                  "; a peer may have died: repeat the command to resume");
  }

  void check_cuda(cudaError_t status, const char* what) {
    if (status != cudaSuccess) give_up(what, cudaGetErrorString(status));
  }

  // The state of the communicator: ncclSuccess, or ncclInProgress while a call goes on in the background.
  ncclResult_t poll(const char* what) {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t status = ncclCommGetAsyncError(comm, &state);
    if (status != ncclSuccess) give_up(what, ncclGetErrorString(status));
    if (state != ncclSuccess && state != ncclInProgress) give_up(what, ncclGetErrorString(state));
    return state;
  }

  // Waits, without keeping a core busy, until is_done(state) holds.
  void wait(const char* what, const std::function<bool(ncclResult_t state)>& is_done) {
    const seconds limit = deadline();
    const auto end = Clock::now() + limit;
    auto pause = std::chrono::microseconds(20);
    while (!is_done(poll(what))) {
      if (Clock::now() >= end) {
        give_up(what, "no answer within " + std::to_string(limit.count()) + " s (WINNOW_NCCL_DEADLINE)");
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::microseconds(1000));
    }
  }

  // For the status of every NCCL call: it may go on in the background, and the next may not begin before it is over.
  void settle(ncclResult_t status, const char* what) {
    if (status != ncclSuccess && status != ncclInProgress) give_up(what, ncclGetErrorString(status));
    wait(what, [](ncclResult_t state) { return state == ncclSuccess; });
  }

  // Waits for the GPU: `query` is cudaSuccess once it is there.
  void wait_gpu(const char* what, const std::function<cudaError_t()>& query) {
    wait(what, [&](ncclResult_t /*state*/) {
      const cudaError_t status = query();
      if (status != cudaErrorNotReady) check_cuda(status, what);
      return status == cudaSuccess;
    });
  }

  void wait_stream(const char* what) {
    wait_gpu(what, [this] { return cudaStreamQuery(stream.get()); });
  }

  void follow_backend(const char* what) {
    check_cuda(cudaEventRecord(backend_is_there.get(), ops.stream()), what);
    check_cuda(cudaStreamWaitEvent(stream.get(), backend_is_there.get(), 0), what);
  }

  void start(const ncclUniqueId& id, int rank, int size) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    settle(ncclCommInitRankConfig(&comm, size, id, rank, &config), "start");
  }

  template <typename T>
  void sum(std::span<T> values, ncclDataType_t type) {
    constexpr const char* kWhat = "sum over the ranks";
    const auto step = static_cast<std::size_t>(kSumBytes) / sizeof(T);
    if (!sum_buffer) sum_buffer = ops.device().allocate(kSumBytes, "sums over the ranks");
    follow_backend(kWhat);
    while (!values.empty()) {
      const std::span<T> part = values.first(std::min(values.size(), step));
      void* data = sum_buffer->data();
      check_cuda(cudaMemcpyAsync(data, part.data(), part.size_bytes(), cudaMemcpyHostToDevice, stream.get()), kWhat);
      settle(ncclAllReduce(data, data, part.size(), type, ncclSum, comm, stream.get()), kWhat);
      // Only then: a copy to memory that is not pinned would wait for the peers itself, with no deadline.
      wait_stream(kWhat);
      check_cuda(cudaMemcpyAsync(part.data(), data, part.size_bytes(), cudaMemcpyDeviceToHost, stream.get()), kWhat);
      wait_stream(kWhat);
      values = values.subspan(part.size());
    }
  }
};

bool NcclComm::is_built() { return true; }

std::string NcclComm::version() {
  int code = 0;
  if (ncclGetVersion(&code) != ncclSuccess) return "of unknown version";
  return std::to_string(code / 10000) + "." + std::to_string(code / 100 % 100) + "." + std::to_string(code % 100);
}

std::unique_ptr<NcclComm> NcclComm::make(MpiSession& session, RankGroup group, kernels::Ops& ops) {
  const bool is_alone = session.size(group) == 1;
  ncclUniqueId id{};
  session.agree([&] {
    if (is_alone || session.rank(group) != 0) return;
    const ncclResult_t status = ncclGetUniqueId(&id);
    if (status == ncclSuccess) return;
    fail(ExitCode::kInternal,
         std::string("NCCL cannot start: ") + ncclGetErrorString(status) + " (" + ncclGetLastError(nullptr) + ")");
  });
  session.broadcast(group, std::as_writable_bytes(std::span(id.internal)));
  std::unique_ptr<NcclComm> comm;
  session.agree([&] {
    if (is_alone) return;
    auto state = std::make_unique<State>(ops);
    state->start(id, session.rank(group), session.size(group));
    comm.reset(new NcclComm(std::move(state)));
  });
  return comm;
}

NcclComm::NcclComm(std::unique_ptr<State> state) : state_(std::move(state)) {}
NcclComm::~NcclComm() = default;

void NcclComm::broadcast(void* data, int64_t size_bytes) {
  constexpr const char* kWhat = "broadcast of weights";
  if (size_bytes == 0) return;
  State& s = *state_;
  if (s.comm == nullptr) fail(ExitCode::kInternal, "NCCL's communicator was aborted");
  s.follow_backend(kWhat);
  s.settle(ncclBroadcast(data, data, static_cast<std::size_t>(size_bytes), ncclUint8, 0, s.comm, s.stream.get()),
           kWhat);
  const auto newest = static_cast<std::size_t>(s.n_broadcasts++ % 2);
  s.check_cuda(cudaEventRecord(s.broadcast_is_over[newest].get(), s.stream.get()), kWhat);
  // An event that was never recorded counts as over.
  s.wait_gpu(kWhat, [&] { return cudaEventQuery(s.broadcast_is_over[1 - newest].get()); });
}

void NcclComm::finish() {
  if (state_->comm == nullptr) fail(ExitCode::kInternal, "NCCL's communicator was aborted");
  state_->wait_stream("broadcast of weights");
}

void NcclComm::sum(std::span<double> values) {
  if (state_->comm == nullptr) fail(ExitCode::kInternal, "NCCL's communicator was aborted");
  state_->sum(values, ncclFloat64);
}

void NcclComm::sum(std::span<float> values) {
  if (state_->comm == nullptr) fail(ExitCode::kInternal, "NCCL's communicator was aborted");
  state_->sum(values, ncclFloat32);
}

}  // namespace winnow::runtime
