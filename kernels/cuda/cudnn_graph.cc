// The graph is the one that cuDNN's engines for fused attention recognise, operation for operation: they match it as a
// pattern, so neither the order nor the types below are free.
//   S = Q K^T; S *= scale; causal: S = row >= col ? S : -inf; window: S = col + W > row ? S : -inf;
//   P = exp(S - max S) / sum; O = P V; LSE = max + log(sum)
// Scale, -inf, W and the lengths are scalars passed by value with every call.

#include "kernels/cuda/cudnn_graph.h"

#include <array>
#include <vector>

namespace winnow::cuda {

namespace {

using namespace graph_id;
using Dims = std::array<int64_t, 4>;

class GraphBuilder {
 public:
  GraphBuilder(const CudnnLibrary& cudnn, const AttentionShape& shape) : cudnn_(cudnn), shape_(shape) {}

  Descriptor build(cudnnHandle_t handle) {
    const AttentionShape& s = shape_;
    const Descriptor q = tensor(kQ, CUDNN_DATA_BFLOAT16, {1, s.n_heads, s.n_queries, s.head_dim},
                                {s.n_queries * s.n_heads * s.head_dim, s.head_dim, s.n_heads * s.head_dim, 1});
    const int64_t key_stride = 2 * s.n_kv_heads * s.head_dim;  // a row's keys, then its values
    const Descriptor k = tensor(kK, CUDNN_DATA_BFLOAT16, {1, s.n_kv_heads, s.head_dim, s.n_keys},
                                {s.n_keys * key_stride, s.head_dim, 1, key_stride});
    const Descriptor v = tensor(kV, CUDNN_DATA_BFLOAT16, {1, s.n_kv_heads, s.n_keys, s.head_dim},
                                {s.n_keys * key_stride, s.head_dim, key_stride, 1});
    Descriptor scores = virtual_scores(CUDNN_DATA_FLOAT);
    matmul(q, k, scores);
    scores = binary(CUDNN_POINTWISE_MUL, scores, scalar(kScale, CUDNN_DATA_FLOAT), virtual_scores(CUDNN_DATA_FLOAT));
    if (s.mask == AttentionShape::Mask::kBottomRight) scores = mask_future(std::move(scores));
    if (s.window > 0) scores = mask_window(std::move(scores));
    const Descriptor p = softmax(scores);
    const Descriptor o = tensor(kO, CUDNN_DATA_BFLOAT16, {1, s.n_heads, s.n_queries, s.head_dim},
                                {s.n_queries * s.n_heads * s.head_dim, s.head_dim, s.n_heads * s.head_dim, 1});
    matmul(p, v, o);

    std::vector<cudnnBackendDescriptor_t> operations;
    for (const Descriptor& operation : operations_) operations.push_back(operation.get());
    Descriptor graph(cudnn_, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
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
    Descriptor t(cudnn_, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
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
    Descriptor mode(cudnn_, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    mode.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT).finalize();
    Descriptor operation(cudnn_, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
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
    Descriptor mode(cudnn_, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    mode.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, what.mode)
        .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, what.compute_type);
    if (what.axis >= 0) mode.set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, what.axis);
    mode.finalize();
    Descriptor operation(cudnn_, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
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
    row = binary(CUDNN_POINTWISE_ADD, row, scalar(kKeys, CUDNN_DATA_INT32), virtual_scores(CUDNN_DATA_INT32),
                 CUDNN_DATA_INT32);
    row = binary(CUDNN_POINTWISE_SUB, row, scalar(kQueries, CUDNN_DATA_INT32), virtual_scores(CUDNN_DATA_INT32),
                 CUDNN_DATA_INT32);
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
    Descriptor mode(cudnn_, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    mode.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, operator_)
        .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT)
        .finalize();
    Descriptor operation(cudnn_, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
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

  const CudnnLibrary& cudnn_;
  const AttentionShape& shape_;
  int64_t next_id_ = kFirstVirtual;
  std::vector<Descriptor> operations_;
};

}  // namespace

Descriptor attention_graph(const CudnnLibrary& cudnn, cudnnHandle_t handle, const AttentionShape& shape) {
  return GraphBuilder(cudnn, shape).build(handle);
}

}  // namespace winnow::cuda
