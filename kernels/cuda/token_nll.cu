#include <algorithm>
#include <cfloat>
#include <cmath>
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

}  // namespace

int64_t token_nll_bytes(int64_t vocab) {
  return kRowChunk * (std::min(kVocabChunk, vocab) * static_cast<int64_t>(sizeof(float)) +
                      static_cast<int64_t>(sizeof(RowState) + sizeof(int32_t)));
}

void CudaBackend::token_nll(const void* x, const Matrix& head, std::span<const int32_t> targets, int64_t n_rows,
                            const TokenScores& out) {
  const auto logits =
      allocate(kRowChunk * std::min(kVocabChunk, head.rows) * static_cast<int64_t>(sizeof(float)), "logits");
  const auto states = allocate(kRowChunk * static_cast<int64_t>(sizeof(RowState)), "softmax statistics");
  const auto device_targets = allocate(kRowChunk * static_cast<int64_t>(sizeof(int32_t)), "targets");
  std::vector<RowState> host_states(static_cast<std::size_t>(kRowChunk));
  for (int64_t row = 0; row < n_rows; row += kRowChunk) {
    const int64_t n = std::min(kRowChunk, n_rows - row);
    const auto begin = static_cast<std::size_t>(row);
    WINNOW_CHECK(cudaMemcpyAsync(device_targets->data(), targets.data() + begin,
                                 static_cast<std::size_t>(n) * sizeof(int32_t), cudaMemcpyHostToDevice, stream_));
    const auto* rows = static_cast<const Bf16*>(x) + row * head.cols;
    for (int64_t first = 0; first < head.rows; first += kVocabChunk) {
      const int64_t n_columns = std::min(kVocabChunk, head.rows - first);
      const Matrix piece{static_cast<Bf16*>(head.data) + first * head.cols, head.dtype, n_columns, head.cols};
      multiply(rows, piece, nullptr, logits->data(), n, false, true);
      fold_kernel<<<static_cast<unsigned>(n), kThreads, 0, stream_>>>(
          static_cast<const float*>(logits->data()), n_columns, static_cast<int32_t>(first),
          static_cast<const int32_t*>(device_targets->data()), static_cast<RowState*>(states->data()));
      WINNOW_CHECK_LAUNCH();
    }
    WINNOW_CHECK(cudaMemcpyAsync(host_states.data(), states->data(), static_cast<std::size_t>(n) * sizeof(RowState),
                                 cudaMemcpyDeviceToHost, stream_));
    synchronize();
    for (int64_t i = 0; i < n; ++i) {
      const int32_t target = targets[begin + static_cast<std::size_t>(i)];
      if (target < 0) continue;
      const RowState& s = host_states[static_cast<std::size_t>(i)];
      out.nll_nats[row + i] = std::log(s.sum) + (static_cast<double>(s.max) - s.target);
      out.is_argmax[row + i] = s.argmax == target ? 1 : 0;
      if (out.argmax != nullptr) out.argmax[row + i] = s.argmax;
    }
  }
}

}  // namespace winnow::cuda
