#include <algorithm>
#include <cfloat>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/vector.cuh"

namespace winnow::cuda {

namespace {

// Logits that are held at a time: (kRowChunk, kVocabChunk) float32, 128 MiB.
constexpr int64_t kRowChunk = 2048;
constexpr int64_t kVocabChunk = 16384;
constexpr int kThreads = 256;

// Softmax statistics of one row over the vocabulary seen so far.
struct RowState {
  double sum;  // of exp(logit - max)
  float max;
  float target;
  int32_t argmax;
};

struct Best {
  float value;
  int32_t index;
};

// The larger value, the lower index among equals.
__device__ Best better(Best a, Best b) {
  return (b.value > a.value || (b.value == a.value && b.index < a.index)) ? b : a;
}

// One block folds one row's logits of a piece of the vocabulary into its state. A NaN logit makes the sum NaN.
__global__ void fold_kernel(const float* logits, int64_t n_columns, int32_t first, const int32_t* targets,
                            RowState* states) {
  const int64_t row = blockIdx.x;
  const int32_t target = targets[row];
  if (target < 0) return;
  const float* x = logits + row * n_columns;
  Best best{-FLT_MAX, INT32_MAX};
  for (int64_t i = threadIdx.x; i < n_columns; i += kThreads) best = better(best, {x[i], static_cast<int32_t>(i)});
  __shared__ Best partial[kThreads];
  partial[threadIdx.x] = best;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] = better(partial[threadIdx.x], partial[threadIdx.x + half]);
    __syncthreads();
  }
  best = partial[0];
  float sum = 0.0F;
  for (int64_t i = threadIdx.x; i < n_columns; i += kThreads) sum += __expf(x[i] - best.value);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  RowState& state = states[row];
  const bool is_first = first == 0;
  const float max = is_first ? best.value : fmaxf(state.max, best.value);
  const double before = is_first ? 0.0 : state.sum * exp(static_cast<double>(state.max) - max);
  if (is_first || best.value > state.max) state.argmax = first + best.index;
  state.sum = before + static_cast<double>(sum) * exp(static_cast<double>(best.value) - max);
  state.max = max;
  if (target >= first && target < first + n_columns) state.target = x[target - first];
}

// Scales and caps logits in place.
__global__ void shape_logits_kernel(float* logits, int64_t n, kernels::LogitShape shape) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const float logit = logits[i] * shape.scale;
  logits[i] = shape.softcap == 0.0F ? logit : shape.softcap * tanhf(logit / shape.softcap);
}

void shape_logits(float* logits, int64_t n, const kernels::LogitShape& shape, cudaStream_t stream) {
  if (shape.is_plain() || n == 0) return;
  shape_logits_kernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(logits, n, shape);
  WINNOW_CUDA_CHECK_LAUNCH();
}

// What a row's divergence from its reference needs, over the vocabulary seen so far.
struct ReferenceState {
  double sum;         // of exp(reference logit - max)
  double difference;  // of exp(reference logit - max) * (reference logit - logit)
  float max;
};

// One block folds one row's logits of a piece of the vocabulary and those of its reference: reference_rows says which
// row that is, -1 for none. The reference's sum is formed as fold_kernel forms the row's, so that equal rows give
// exactly 0.
__global__ void fold_reference_kernel(const float* logits, const float* reference_logits, int64_t n_columns,
                                      bool is_first, const int32_t* reference_rows, ReferenceState* states) {
  const int64_t row = blockIdx.x;
  const int32_t reference_row = reference_rows[row];
  if (reference_row < 0) return;
  const float* x = logits + row * n_columns;
  const float* r = reference_logits + reference_row * n_columns;
  float best = -FLT_MAX;
  for (int64_t i = threadIdx.x; i < n_columns; i += kThreads) best = fmaxf(best, r[i]);
  __shared__ float partial[kThreads];
  partial[threadIdx.x] = best;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] = fmaxf(partial[threadIdx.x], partial[threadIdx.x + half]);
    __syncthreads();
  }
  best = partial[0];
  float sum = 0.0F;
  float difference = 0.0F;
  for (int64_t i = threadIdx.x; i < n_columns; i += kThreads) {
    const float e = __expf(r[i] - best);
    sum += e;
    difference += e * (r[i] - x[i]);
  }
  sum = block_sum<kThreads>(sum);
  __syncthreads();
  difference = block_sum<kThreads>(difference);
  if (threadIdx.x != 0) return;
  ReferenceState& state = states[row];
  const float max = is_first ? best : fmaxf(state.max, best);
  const double before = is_first ? 0.0 : exp(static_cast<double>(state.max) - max);
  const double now = exp(static_cast<double>(best) - max);
  state.sum = (is_first ? 0.0 : state.sum * before) + static_cast<double>(sum) * now;
  state.difference = (is_first ? 0.0 : state.difference * before) + static_cast<double>(difference) * now;
  state.max = max;
}

double kl_of(const RowState& row, const ReferenceState& reference) {
  const double log_sum = std::log(row.sum) + static_cast<double>(row.max);
  const double reference_log_sum = std::log(reference.sum) + static_cast<double>(reference.max);
  const double kl = reference.difference / reference.sum - (reference_log_sum - log_sum);
  return kl < 0.0 ? 0.0 : kl;  // by rounding; NaN stays
}

int64_t logit_bytes(int64_t vocab) {
  return kRowChunk * std::min(kVocabChunk, vocab) * static_cast<int64_t>(sizeof(float));
}

// The reference tiles that a chunk of rows needs, in slots of a buffer of kRowChunk rows: each tile has one row tile,
// so they never need more.
struct ReferenceChunk {
  std::vector<int32_t> tiles;  // by slot
  std::vector<int32_t> rows;   // of the buffer, one a row of the chunk; -1: none
};

ReferenceChunk reference_chunk(std::span<const int32_t> tiles_of_rows, std::span<const int32_t> targets) {
  ReferenceChunk chunk;
  chunk.rows.assign(targets.size(), -1);
  for (std::size_t tile = 0; tile < tiles_of_rows.size(); ++tile) {
    const int32_t reference = tiles_of_rows[tile];
    if (reference < 0) continue;
    const auto found = std::find(chunk.tiles.begin(), chunk.tiles.end(), reference);
    const auto slot = static_cast<int32_t>(found - chunk.tiles.begin());
    if (found == chunk.tiles.end()) chunk.tiles.push_back(reference);
    for (std::size_t r = 0; r < static_cast<std::size_t>(kRowTile); ++r) {
      const std::size_t row = tile * static_cast<std::size_t>(kRowTile) + r;
      if (targets[row] >= 0) chunk.rows[row] = slot * static_cast<int32_t>(kRowTile) + static_cast<int32_t>(r);
    }
  }
  return chunk;
}

}  // namespace

// The divergence of a chunk of rows from their references, on the device.
class CudaBackend::ReferenceFold {
 public:
  ReferenceFold(CudaBackend& ops, const kernels::Matrix& head, const kernels::LogitShape& shape,
                const kernels::ReferenceRows& reference)
      : ops_(ops),
        shape_(shape),
        reference_(reference),
        logits_(ops.device().allocate(logit_bytes(head.rows), "logits of the reference rows")),
        rows_(ops.device().allocate(kRowChunk * static_cast<int64_t>(sizeof(int32_t)), "numbers of reference rows")),
        states_(
            ops.device().allocate(kRowChunk * static_cast<int64_t>(sizeof(ReferenceState)), "reference statistics")),
        host_states_(static_cast<std::size_t>(kRowChunk)) {}

  // The chunk from `row` on.
  void begin(int64_t row, std::span<const int32_t> targets) {
    chunk_ = reference_chunk(reference_.tiles.subspan(static_cast<std::size_t>(row / kRowTile),
                                                      targets.size() / static_cast<std::size_t>(kRowTile)),
                             targets);
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(rows_->data(), chunk_.rows.data(), chunk_.rows.size() * sizeof(int32_t),
                                      cudaMemcpyHostToDevice, ops_.stream_));
  }

  // A piece of the vocabulary, whose logits of the chunk's rows are there.
  void fold(const kernels::Matrix& piece, bool is_first, const float* logits) {
    if (chunk_.tiles.empty()) return;
    auto* reference_logits = static_cast<float*>(logits_->data());
    for (std::size_t slot = 0; slot < chunk_.tiles.size(); ++slot) {
      const kernels::Rows logits_of_tile{reference_logits + static_cast<int64_t>(slot) * kRowTile * piece.rows,
                                         kernels::DType::kF32, kRowTile, piece.rows};
      ops_.multiply(reference_.x.slice(chunk_.tiles[slot] * kRowTile, kRowTile), piece, {}, logits_of_tile, false);
    }
    shape_logits(reference_logits, static_cast<int64_t>(chunk_.tiles.size()) * kRowTile * piece.rows, shape_,
                 ops_.stream_);
    fold_reference_kernel<<<static_cast<unsigned>(chunk_.rows.size()), kThreads, 0, ops_.stream_>>>(
        logits, reference_logits, piece.rows, is_first, static_cast<const int32_t*>(rows_->data()),
        static_cast<ReferenceState*>(states_->data()));
    WINNOW_CUDA_CHECK_LAUNCH();
  }

  void fetch() {
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(host_states_.data(), states_->data(), chunk_.rows.size() * sizeof(ReferenceState),
                                      cudaMemcpyDeviceToHost, ops_.stream_));
  }
  // After the stream has been waited for: of the chunk's row i, unless it has no reference.
  void finish(int64_t i, const RowState& state, double& kl_nats) const {
    const auto index = static_cast<std::size_t>(i);
    if (chunk_.rows[index] >= 0) kl_nats = kl_of(state, host_states_[index]);
  }

 private:
  CudaBackend& ops_;
  kernels::LogitShape shape_;
  const kernels::ReferenceRows& reference_;
  std::unique_ptr<kernels::Buffer> logits_;  // (kRowChunk, piece of the vocabulary)
  std::unique_ptr<kernels::Buffer> rows_;    // (kRowChunk) int32
  std::unique_ptr<kernels::Buffer> states_;  // (kRowChunk)
  std::vector<ReferenceState> host_states_;
  ReferenceChunk chunk_;
};

int64_t token_nll_bytes(int64_t vocab) {
  return 2 * logit_bytes(vocab) +
         kRowChunk * static_cast<int64_t>(sizeof(RowState) + sizeof(ReferenceState) + 2 * sizeof(int32_t));
}

void CudaBackend::do_token_nll(kernels::ConstRows x, const kernels::Matrix& head, const kernels::LogitShape& shape,
                               std::span<const int32_t> targets, const kernels::TokenScores& out) {
  const auto logits = allocate(logit_bytes(head.rows), "logits");
  const auto states = allocate(kRowChunk * static_cast<int64_t>(sizeof(RowState)), "softmax statistics");
  const auto device_targets = allocate(kRowChunk * static_cast<int64_t>(sizeof(int32_t)), "targets");
  std::vector<RowState> host_states(static_cast<std::size_t>(kRowChunk));
  std::optional<ReferenceFold> references;
  if (!out.kl_nats.empty()) references.emplace(*this, head, shape, out.reference);
  for (int64_t row = 0; row < x.n_rows; row += kRowChunk) {
    const int64_t n = std::min(kRowChunk, x.n_rows - row);
    const auto begin = static_cast<std::size_t>(row);
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(device_targets->data(), targets.data() + begin,
                                      static_cast<std::size_t>(n) * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
    if (references) references->begin(row, targets.subspan(begin, static_cast<std::size_t>(n)));
    for (int64_t first = 0; first < head.rows; first += kVocabChunk) {
      const int64_t n_columns = std::min(kVocabChunk, head.rows - first);
      const kernels::Matrix piece = head.slice(first, n_columns);
      multiply(x.slice(row, n), piece, {}, {logits->data(), kernels::DType::kF32, n, n_columns}, false);
      shape_logits(static_cast<float*>(logits->data()), n * n_columns, shape, stream_);
      fold_kernel<<<static_cast<unsigned>(n), kThreads, 0, stream_>>>(
          static_cast<const float*>(logits->data()), n_columns, static_cast<int32_t>(first),
          static_cast<const int32_t*>(device_targets->data()), static_cast<RowState*>(states->data()));
      WINNOW_CUDA_CHECK_LAUNCH();
      if (references) references->fold(piece, first == 0, static_cast<const float*>(logits->data()));
    }
    WINNOW_CUDA_CHECK(cudaMemcpyAsync(host_states.data(), states->data(),
                                      static_cast<std::size_t>(n) * sizeof(RowState), cudaMemcpyDeviceToHost, stream_));
    if (references) references->fetch();
    synchronize();
    for (int64_t i = 0; i < n; ++i) {
      const std::size_t at = begin + static_cast<std::size_t>(i);
      const int32_t target = targets[at];
      if (target < 0) continue;
      const RowState& s = host_states[static_cast<std::size_t>(i)];
      out.nll_nats[at] = std::log(s.sum) + (static_cast<double>(s.max) - s.target);
      out.is_argmax[at] = s.argmax == target ? 1 : 0;
      if (!out.argmax.empty()) out.argmax[at] = s.argmax;
      if (references) references->finish(i, s, out.kl_nats[at]);
    }
  }
}

}  // namespace winnow::cuda
