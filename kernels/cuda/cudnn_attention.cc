#include "kernels/cuda/cudnn_attention.h"

#include <array>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn_graph.h"

namespace winnow::cuda {

namespace {

// A handle; each is used by one thread at a time.
class Handle {
 public:
  explicit Handle(const CudnnLibrary& cudnn) : cudnn_(cudnn) { WINNOW_CUDNN_CHECK(cudnn, cudnn.create(&handle_)); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { cudnn_.destroy(handle_); }
  cudnnHandle_t get() const { return handle_; }

 private:
  const CudnnLibrary& cudnn_;
  cudnnHandle_t handle_ = nullptr;
};

struct Plan {
  std::optional<Descriptor> descriptor;  // none: cuDNN has no plan, for this reason
  std::string reason;
  int64_t workspace_bytes = 0;
};

class PlanBuilder {
 public:
  PlanBuilder(const CudnnLibrary& cudnn, cudnnHandle_t handle) : cudnn_(cudnn), handle_(handle) {}

  Plan build(const AttentionShape& shape) const {
    const Descriptor graph = attention_graph(cudnn_, handle_, shape);
    Descriptor heuristic(cudnn_, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
    cudnnStatus_t status = heuristic.try_finalize();
    if (status != CUDNN_STATUS_SUCCESS) return no_plan(status);
    constexpr int64_t kCandidates = 4;
    std::vector<Descriptor> configurations;
    std::array<cudnnBackendDescriptor_t, kCandidates> handles{};
    for (cudnnBackendDescriptor_t& h : handles) {
      configurations.emplace_back(cudnn_, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      h = configurations.back().get();
    }
    int64_t n_found = 0;
    WINNOW_CUDNN_CHECK(
        cudnn_, cudnn_.get_attribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                     kCandidates, &n_found, handles.data()));
    status = CUDNN_STATUS_NOT_SUPPORTED;
    for (int64_t i = 0; i < n_found; ++i) {
      Descriptor plan(cudnn_, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations[static_cast<std::size_t>(i)])
          .set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle_);
      status = plan.try_finalize();
      if (status == CUDNN_STATUS_SUCCESS) return with_workspace(std::move(plan));
    }
    return no_plan(status);
  }

 private:
  Plan with_workspace(Descriptor plan) const {
    int64_t workspace_bytes = 0;
    int64_t count = 0;
    WINNOW_CUDNN_CHECK(cudnn_, cudnn_.get_attribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                    CUDNN_TYPE_INT64, 1, &count, &workspace_bytes));
    return {std::move(plan), "", workspace_bytes};
  }
  Plan no_plan(cudnnStatus_t status) const {
    return {std::nullopt,
            "cuDNN " + cudnn_.version() + " has no plan for this attention: " + cudnn_.get_error_string(status), 0};
  }

  const CudnnLibrary& cudnn_;
  cudnnHandle_t handle_;
};

// All plans, built where they are first asked for or ahead of time by a thread with a handle of its own.
class Plans {
 public:
  Plans(const CudnnLibrary& cudnn, int device, cudnnHandle_t handle)
      : cudnn_(cudnn), device_(device), builder_(cudnn, handle) {}
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;
  ~Plans() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
      queue_.clear();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  const Plan& get(const AttentionShape& shape) {
    std::unique_lock lock(mutex_);
    const auto entry = plans_.try_emplace(shape).first;
    if (entry->second.state == State::kBuilding) {
      changed_.wait(lock, [&] { return entry->second.state == State::kDone; });
    }
    if (entry->second.state != State::kDone) {
      entry->second.state = State::kBuilding;  // the thread will pass it over
      lock.unlock();
      Plan plan = builder_.build(shape);
      lock.lock();
      entry->second = {State::kDone, std::move(plan)};
    }
    return entry->second.plan;
  }

  void prepare(const AttentionShape& shape) {
    {
      const std::lock_guard lock(mutex_);
      if (!plans_.try_emplace(shape).second) return;
      queue_.push_back(shape);
      if (!thread_.joinable()) thread_ = std::thread([this] { build_ahead(); });
    }
    changed_.notify_all();
  }

 private:
  enum class State { kWanted, kBuilding, kDone };
  struct Entry {
    State state = State::kWanted;
    Plan plan;
  };

  void build_ahead() {
    std::optional<Handle> handle;
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return is_ending_ || !queue_.empty(); });
      if (is_ending_) return;
      const AttentionShape shape = queue_.front();
      queue_.pop_front();
      Entry& entry = plans_.at(shape);
      if (entry.state != State::kWanted) continue;
      entry.state = State::kBuilding;
      lock.unlock();
      Plan plan;
      try {
        WINNOW_CUDA_CHECK(cudaSetDevice(device_));
        if (!handle) handle.emplace(cudnn_);
        plan = PlanBuilder(cudnn_, handle->get()).build(shape);
      } catch (const std::exception& error) {
        plan.reason = error.what();  // told to whoever asks for it
      }
      lock.lock();
      entry = {State::kDone, std::move(plan)};
      changed_.notify_all();
    }
  }

  const CudnnLibrary& cudnn_;
  int device_;
  PlanBuilder builder_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<AttentionShape, Entry> plans_;  // entries stay where they are
  std::deque<AttentionShape> queue_;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace

struct CudnnAttention::State {
  State(const CudnnLibrary& library, int device, cudaStream_t stream_of_calls)
      : cudnn(library), handle(library), plans(library, device, handle.get()), stream(stream_of_calls) {
    WINNOW_CUDNN_CHECK(cudnn, cudnn.set_stream(handle.get(), stream));
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { cudaFreeAsync(workspace, stream); }

  void reserve(int64_t size_bytes) {
    if (size_bytes <= workspace_bytes) return;
    WINNOW_CUDA_CHECK(cudaFreeAsync(workspace, stream));
    workspace = nullptr;
    WINNOW_CUDA_CHECK(cudaMallocAsync(&workspace, static_cast<std::size_t>(size_bytes), stream));
    workspace_bytes = size_bytes;
  }

  const CudnnLibrary& cudnn;
  Handle handle;
  Plans plans;
  cudaStream_t stream;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

CudnnAttention::CudnnAttention(std::unique_ptr<State> state) : state_(std::move(state)) {}
CudnnAttention::~CudnnAttention() = default;

std::unique_ptr<CudnnAttention> CudnnAttention::open(int device, cudaStream_t stream, std::string& reason) {
  const CudnnLibrary* library = CudnnLibrary::load(reason);
  if (library == nullptr) return nullptr;
  return std::unique_ptr<CudnnAttention>(new CudnnAttention(std::make_unique<State>(*library, device, stream)));
}

std::string CudnnAttention::version() const { return state_->cudnn.version(); }

bool CudnnAttention::supports(const AttentionShape& shape, std::string& reason) {
  const Plan& plan = state_->plans.get(shape);
  reason = plan.reason;
  return plan.descriptor.has_value();
}

void CudnnAttention::prepare(const AttentionShape& shape) { state_->plans.prepare(shape); }

void CudnnAttention::run(const AttentionShape& shape, const AttentionPointers& p, float scale) {
  using namespace graph_id;
  const Plan& plan = state_->plans.get(shape);
  if (!plan.descriptor) fail(ExitCode::kInternal, plan.reason);
  const float hidden = -std::numeric_limits<float>::infinity();
  const auto n_queries = static_cast<int32_t>(shape.n_queries);
  const auto n_keys = static_cast<int32_t>(shape.n_keys);
  // The window is stated from the query's own index: bottom right, the indices differ by n_keys - n_queries.
  const int64_t shift = shape.mask == AttentionShape::Mask::kBottomRight ? shape.n_keys - shape.n_queries : 0;
  const auto window = static_cast<float>(shape.window - shift);
  const void* values = static_cast<const std::byte*>(p.kv) + shape.n_kv_heads * shape.head_dim * 2;

  std::vector<int64_t> ids = {kQ, kK, kV, kO, kStats, kScale};
  std::vector<const void*> data = {p.q, p.kv, values, p.out, p.lse, &scale};
  const auto pass = [&](Id id, const void* value) {
    ids.push_back(id);
    data.push_back(value);
  };
  if (shape.mask == AttentionShape::Mask::kBottomRight) {
    pass(kHidden, &hidden);
    pass(kQueries, &n_queries);
    pass(kKeys, &n_keys);
  }
  if (shape.window > 0) {
    pass(kHiddenWindow, &hidden);
    pass(kWindow, &window);
  }
  state_->reserve(plan.workspace_bytes);
  const CudnnLibrary& cudnn = state_->cudnn;
  Descriptor pack(cudnn, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  void* workspace = state_->workspace;
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, static_cast<int64_t>(ids.size()), ids.data())
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<int64_t>(data.size()), data.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace)
      .finalize();
  WINNOW_CUDNN_CHECK(cudnn, cudnn.execute(state_->handle.get(), plan.descriptor->get(), pack.get()));
}

}  // namespace winnow::cuda
