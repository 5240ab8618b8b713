// The graph is the one that cuDNN's engines for fused attention recognise, operation for operation: they match it as a
// pattern, so neither the order nor the types below are free.
//   S = Q K^T; S *= scale; causal: S = row >= col ? S : -inf; window: S = col + W > row ? S : -inf;
//   P = exp(S - max S) / sum; O = P V; LSE = max + log(sum)
// Scale, -inf, W and the lengths are scalars passed by value with every call.

#include "kernels/cuda/cudnn_attention.h"

#include <cudnn.h>

#include <array>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/check.h"

namespace winnow::cuda {

namespace {

void check(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status != CUDNN_STATUS_SUCCESS)
    fail_call(call, cudnnGetErrorString(status), static_cast<int>(status), file, line);
}

#define WINNOW_CHECK_CUDNN(call) check((call), #call, __FILE__, __LINE__)

using Dims = std::array<int64_t, 4>;

// A backend descriptor with its attributes set one after another.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    WINNOW_CHECK_CUDNN(cudnnBackendCreateDescriptor(type, &handle_));
  }
  Descriptor(Descriptor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Descriptor() {
    if (handle_ != nullptr) cudnnBackendDestroyDescriptor(handle_);
  }

  template <typename T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const T* values) {
    WINNOW_CHECK_CUDNN(cudnnBackendSetAttribute(handle_, name, type, count, values));
    return *this;
  }
  template <typename T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    return set(name, type, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.handle_);
  }
  Descriptor& finalize() {
    WINNOW_CHECK_CUDNN(cudnnBackendFinalize(handle_));
    return *this;
  }
  cudnnStatus_t try_finalize() { return cudnnBackendFinalize(handle_); }
  cudnnBackendDescriptor_t get() const { return handle_; }

 private:
  cudnnBackendDescriptor_t handle_ = nullptr;
};

// Unique ids of the tensors that a call passes.
enum Id : int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kStats,
  kScale,
  kHidden,
  kHiddenWindow,
  kQueries,
  kKeys,
  kWindow,
  kFirstVirtual
};

class GraphBuilder {
 public:
  explicit GraphBuilder(const AttentionShape& shape) : shape_(shape) {}

  Descriptor build(cudnnHandle_t handle) {
    const AttentionShape& s = shape_;
    const Descriptor q = tensor(kQ, CUDNN_DATA_BFLOAT16, {1, s.n_heads, s.n_queries, s.head_dim},
                                {s.n_queries * s.n_heads * s.head_dim, s.head_dim, s.n_heads * s.head_dim, 1});
    const int64_t key_stride = s.n_kv_heads * s.head_dim;
    const Descriptor k = tensor(kK, CUDNN_DATA_BFLOAT16, {1, s.n_kv_heads, s.head_dim, s.n_keys},
                                {s.n_keys * key_stride, s.head_dim, 1, key_stride});
    const Descriptor v = tensor(kV, CUDNN_DATA_BFLOAT16, {1, s.n_kv_heads, s.n_keys, s.head_dim},
                                {s.n_keys * key_stride, s.head_dim, key_stride, 1});
    Descriptor scores = virtual_scores(CUDNN_DATA_FLOAT);
    matmul(q, k, scores);
    scores = binary(CUDNN_POINTWISE_MUL, scores, scalar(kScale, CUDNN_DATA_FLOAT), virtual_scores(CUDNN_DATA_FLOAT));
    if (s.mask != AttentionShape::Mask::kNone) scores = mask_future(std::move(scores));
    if (s.window > 0) scores = mask_window(std::move(scores));
    const Descriptor p = softmax(scores);
    const Descriptor o = tensor(kO, CUDNN_DATA_BFLOAT16, {1, s.n_heads, s.n_queries, s.head_dim},
                                {s.n_queries * s.n_heads * s.head_dim, s.head_dim, s.n_heads * s.head_dim, 1});
    matmul(p, v, o);

    std::vector<cudnnBackendDescriptor_t> operations;
    for (const Descriptor& operation : operations_) operations.push_back(operation.get());
    Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(operations.size()),
              operations.data());
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
    graph.finalize();
    return graph;
  }

 private:
  Descriptor tensor(int64_t id, cudnnDataType_t type, const Dims& dims, const Dims& strides, bool is_virtual = false,
                    bool by_value = false) {
    constexpr int64_t kAlignment = 16;
    Descriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type)
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims.data())
        .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.data())
        .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment);
    if (is_virtual) t.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
    if (by_value) t.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, true);
    t.finalize();
    return t;
  }
  Descriptor scalar(int64_t id, cudnnDataType_t type) {
    return tensor(id, type, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true);
  }
  Descriptor virtual_scores(cudnnDataType_t type) {
    const int64_t n = shape_.n_queries * shape_.n_keys;
    return tensor(next_id_++, type, {1, shape_.n_heads, shape_.n_queries, shape_.n_keys},
                  {shape_.n_heads * n, n, shape_.n_keys, 1}, true);
  }
  Descriptor row_statistic(int64_t id, bool is_virtual) {
    return tensor(id, CUDNN_DATA_FLOAT, {1, shape_.n_heads, shape_.n_queries, 1},
                  {shape_.n_heads * shape_.n_queries, shape_.n_queries, 1, 1}, is_virtual);
  }
  Descriptor virtual_statistic() { return row_statistic(next_id_++, true); }

  void matmul(const Descriptor& a, const Descriptor& b, const Descriptor& c) {
    Descriptor mode(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    mode.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT).finalize();
    Descriptor operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a)
        .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b)
        .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c)
        .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, mode)
        .finalize();
    operations_.push_back(std::move(operation));
  }

  struct Pointwise {
    cudnnPointwiseMode_t mode;
    cudnnDataType_t compute_type = CUDNN_DATA_FLOAT;
    int64_t axis = -1;  // of an index
    const Descriptor* b = nullptr;
    const Descriptor* choice = nullptr;  // of a selection
  };
  Descriptor pointwise(const Pointwise& what, const Descriptor& x, Descriptor y) {
    Descriptor mode(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    mode.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, what.mode)
        .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, what.compute_type);
    if (what.axis >= 0) mode.set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, what.axis);
    mode.finalize();
    Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode)
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    if (what.b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *what.b);
    if (what.choice != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, *what.choice);
    operation.finalize();
    operations_.push_back(std::move(operation));
    return y;
  }
  Descriptor binary(cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor& b, Descriptor y,
                    cudnnDataType_t compute_type = CUDNN_DATA_FLOAT) {
    return pointwise({.mode = mode, .compute_type = compute_type, .b = &b}, x, std::move(y));
  }
  Descriptor index(const Descriptor& scores, int64_t axis) {
    return pointwise({.mode = CUDNN_POINTWISE_GEN_INDEX, .compute_type = CUDNN_DATA_INT32, .axis = axis}, scores,
                     virtual_scores(CUDNN_DATA_INT32));
  }
  Descriptor select(const Descriptor& scores, const Descriptor& hidden, const Descriptor& choice) {
    return pointwise({.mode = CUDNN_POINTWISE_BINARY_SELECT, .b = &hidden, .choice = &choice}, scores,
                     virtual_scores(CUDNN_DATA_FLOAT));
  }

  Descriptor mask_future(Descriptor scores) {
    Descriptor row = index(scores, 2);
    const Descriptor col = index(scores, 3);
    if (shape_.mask == AttentionShape::Mask::kBottomRight) {
      row = binary(CUDNN_POINTWISE_ADD, row, scalar(kKeys, CUDNN_DATA_INT32), virtual_scores(CUDNN_DATA_INT32),
                   CUDNN_DATA_INT32);
      row = binary(CUDNN_POINTWISE_SUB, row, scalar(kQueries, CUDNN_DATA_INT32), virtual_scores(CUDNN_DATA_INT32),
                   CUDNN_DATA_INT32);
    }
    const Descriptor seen =
        binary(CUDNN_POINTWISE_CMP_GE, row, col, virtual_scores(CUDNN_DATA_BOOLEAN), CUDNN_DATA_BOOLEAN);
    return select(scores, scalar(kHidden, CUDNN_DATA_FLOAT), seen);
  }
  Descriptor mask_window(Descriptor scores) {
    const Descriptor row = index(scores, 2);
    Descriptor col = index(scores, 3);
    col = binary(CUDNN_POINTWISE_ADD, col, scalar(kWindow, CUDNN_DATA_FLOAT), virtual_scores(CUDNN_DATA_FLOAT));
    const Descriptor seen =
        binary(CUDNN_POINTWISE_CMP_GT, col, row, virtual_scores(CUDNN_DATA_BOOLEAN), CUDNN_DATA_BOOLEAN);
    return select(scores, scalar(kHiddenWindow, CUDNN_DATA_FLOAT), seen);
  }

  Descriptor reduce(cudnnReduceTensorOp_t operator_, const Descriptor& x, Descriptor y) {
    Descriptor mode(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    mode.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, operator_)
        .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT)
        .finalize();
    Descriptor operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, mode)
        .finalize();
    operations_.push_back(std::move(operation));
    return y;
  }
  Descriptor softmax(const Descriptor& scores) {
    const Descriptor max = reduce(CUDNN_REDUCE_TENSOR_MAX, scores, virtual_statistic());
    const Descriptor shifted = binary(CUDNN_POINTWISE_SUB, scores, max, virtual_scores(CUDNN_DATA_FLOAT));
    const Descriptor exponential = pointwise({.mode = CUDNN_POINTWISE_EXP}, shifted, virtual_scores(CUDNN_DATA_FLOAT));
    const Descriptor sum = reduce(CUDNN_REDUCE_TENSOR_ADD, exponential, virtual_statistic());
    const Descriptor log = pointwise({.mode = CUDNN_POINTWISE_LOG}, sum, virtual_statistic());
    binary(CUDNN_POINTWISE_ADD, max, log, row_statistic(kStats, false));
    return binary(CUDNN_POINTWISE_DIV, exponential, sum, virtual_scores(CUDNN_DATA_BFLOAT16));
  }

  const AttentionShape& shape_;
  int64_t next_id_ = kFirstVirtual;
  std::vector<Descriptor> operations_;
};

}  // namespace

struct CudnnAttention::State {
  cudnnHandle_t handle = nullptr;
  std::string reason;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  // No plan is a null plan: it is not tried again.
  std::map<AttentionShape, std::unique_ptr<Descriptor>> plans;

  std::unique_ptr<Descriptor> build(const AttentionShape& shape) {
    const Descriptor graph = GraphBuilder(shape).build(handle);
    Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
    cudnnStatus_t status = heuristic.try_finalize();
    if (status != CUDNN_STATUS_SUCCESS) return no_plan(status);
    constexpr int64_t kCandidates = 4;
    std::vector<Descriptor> configurations;
    std::array<cudnnBackendDescriptor_t, kCandidates> handles{};
    for (cudnnBackendDescriptor_t& h : handles) {
      configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      h = configurations.back().get();
    }
    int64_t n_found = 0;
    WINNOW_CHECK_CUDNN(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, kCandidates, &n_found, handles.data()));
    status = CUDNN_STATUS_NOT_SUPPORTED;
    for (int64_t i = 0; i < n_found; ++i) {
      auto plan = std::make_unique<Descriptor>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations[static_cast<std::size_t>(i)])
          .set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
      status = plan->try_finalize();
      if (status == CUDNN_STATUS_SUCCESS) return plan;
    }
    return no_plan(status);
  }

  std::unique_ptr<Descriptor> no_plan(cudnnStatus_t status) {
    reason = "cuDNN " + version() + " has no plan for this attention: " + cudnnGetErrorString(status);
    return nullptr;
  }

  // Work that is queued may still use the old workspace: it is not freed before that is done (cudaFree waits).
  void reserve(int64_t size_bytes) {
    if (size_bytes <= workspace_bytes) return;
    WINNOW_CHECK(cudaFree(workspace));
    workspace = nullptr;
    WINNOW_CHECK(cudaMalloc(&workspace, static_cast<std::size_t>(size_bytes)));
    workspace_bytes = size_bytes;
  }

  const Descriptor* plan(const AttentionShape& shape) {
    const auto found = plans.find(shape);
    if (found != plans.end()) return found->second.get();
    return (plans[shape] = build(shape)).get();
  }
};

CudnnAttention::CudnnAttention(cudaStream_t stream) : state_(std::make_unique<State>()) {
  WINNOW_CHECK_CUDNN(cudnnCreate(&state_->handle));
  WINNOW_CHECK_CUDNN(cudnnSetStream(state_->handle, stream));
}

CudnnAttention::~CudnnAttention() {
  state_->plans.clear();
  cudaFree(state_->workspace);
  cudnnDestroy(state_->handle);
}

std::string CudnnAttention::version() {
  const std::size_t v = cudnnGetVersion();
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

bool CudnnAttention::supports(const AttentionShape& shape) { return state_->plan(shape) != nullptr; }
const std::string& CudnnAttention::reason() const { return state_->reason; }

void CudnnAttention::run(const AttentionShape& shape, const AttentionPointers& p, float scale) {
  const Descriptor* plan = state_->plan(shape);
  if (plan == nullptr) fail(ExitCode::kInternal, state_->reason);
  const float hidden = -std::numeric_limits<float>::infinity();
  const auto n_queries = static_cast<int32_t>(shape.n_queries);
  const auto n_keys = static_cast<int32_t>(shape.n_keys);
  // The window is stated from the query's own index: bottom right, the indices differ by n_keys - n_queries.
  const int64_t shift = shape.mask == AttentionShape::Mask::kBottomRight ? shape.n_keys - shape.n_queries : 0;
  const auto window = static_cast<float>(shape.window - shift);

  std::vector<int64_t> ids = {kQ, kK, kV, kO, kStats, kScale};
  std::vector<const void*> data = {p.q, p.k, p.v, p.out, p.lse, &scale};
  const auto pass = [&](Id id, const void* value) {
    ids.push_back(id);
    data.push_back(value);
  };
  if (shape.mask != AttentionShape::Mask::kNone) pass(kHidden, &hidden);
  if (shape.mask == AttentionShape::Mask::kBottomRight) {
    pass(kQueries, &n_queries);
    pass(kKeys, &n_keys);
  }
  if (shape.window > 0) {
    pass(kHiddenWindow, &hidden);
    pass(kWindow, &window);
  }
  int64_t workspace_bytes = 0;
  int64_t count = 0;
  WINNOW_CHECK_CUDNN(cudnnBackendGetAttribute(plan->get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                              1, &count, &workspace_bytes));
  state_->reserve(workspace_bytes);
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  void* workspace = state_->workspace;
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, static_cast<int64_t>(ids.size()), ids.data())
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<int64_t>(data.size()), data.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace)
      .finalize();
  WINNOW_CHECK_CUDNN(cudnnBackendExecute(state_->handle, plan->get(), pack.get()));
}

}  // namespace winnow::cuda
