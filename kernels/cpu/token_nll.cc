#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/simd.h"

namespace winnow::cpu {

namespace {

// Vocabulary entries whose logits are held at a time.
constexpr int64_t kVocabChunk = 512;

// Softmax statistics of one row over the vocabulary seen so far.
struct RowState {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0.0;  // of exp(logit - max)
  float target = 0.0F;
  int64_t argmax = -1;
};

void fold_chunk(const float* logits, int64_t first, int64_t n, int32_t target, RowState& state) {
  const auto best = std::max_element(logits, logits + n);  // the first of equals
  // A NaN logit makes `best` meaningless; the sum below is NaN then, and so is the result.
  const float max = std::max(state.max, *best);
  if (*best > state.max || state.argmax < 0) state.argmax = first + (best - logits);
  VecF sum{};
  int64_t i = 0;
  for (; i + kVec <= n; i += kVec) sum += exp2((load(logits + i) - max) * kLog2E);
  if (i < n) {
    const VecF e = exp2((load_part(logits + i, n - i) - max) * kLog2E);
    for (int64_t j = 0; j < n - i; ++j) sum[j] += e[j];
  }
  const double rescaled = state.sum == 0.0 ? 0.0 : state.sum * std::exp(static_cast<double>(state.max) - max);
  state.sum = rescaled + static_cast<double>(horizontal_sum(sum));
  state.max = max;
  if (target >= first && target < first + n) state.target = logits[target - first];
}

int64_t weight_chunk_bytes(int64_t hidden, int64_t vocab) {
  return std::min(kVocabChunk, vocab) * hidden * static_cast<int64_t>(sizeof(float));
}

int64_t logit_bytes(int64_t vocab, int n_threads) {
  return n_threads * kRowTile * std::min(kVocabChunk, vocab) * static_cast<int64_t>(sizeof(float));
}

}  // namespace

int64_t token_nll_bytes(int64_t hidden, int64_t vocab, int n_threads) {
  return weight_chunk_bytes(hidden, vocab) + logit_bytes(vocab, n_threads);
}

void CpuBackend::token_nll(const void* x, const Matrix& head, std::span<const int32_t> targets, int64_t n_rows,
                           const TokenScores& out) {
  const auto* from = static_cast<const float*>(x);
  const int64_t hidden = head.cols;
  const int64_t n_tiles = n_rows / kRowTile;
  const int64_t chunk = std::min(kVocabChunk, head.rows);
  std::vector<RowState> states(static_cast<std::size_t>(n_rows));
  const auto weight_memory = allocate(weight_chunk_bytes(hidden, head.rows), "a piece of the head");
  const auto logit_memory = allocate(logit_bytes(head.rows, pool_.size()), "logits of a tile");
  auto* weight = static_cast<float*>(weight_memory->data());
  for (int64_t first = 0; first < head.rows; first += chunk) {
    const int64_t n = std::min(chunk, head.rows - first);
    pool_.run((n + kRowTile - 1) / kRowTile, [&](int64_t task, int) {
      const int64_t v = task * kRowTile;
      const auto* rows = static_cast<const std::byte*>(head.data) + (first + v) * hidden * size_bytes(head.dtype);
      to_float32(rows, head.dtype, std::min(kRowTile, n - v) * hidden, weight + v * hidden);
    });
    pool_.run(n_tiles, [&](int64_t tile, int thread) {
      const auto begin = targets.begin() + tile * kRowTile;
      if (std::all_of(begin, begin + kRowTile, [](int32_t t) { return t < 0; })) return;
      float* logits = static_cast<float*>(logit_memory->data()) + thread * kRowTile * chunk;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kRowTile, static_cast<int>(n), static_cast<int>(hidden),
                  1.0F, from + tile * kRowTile * hidden, static_cast<int>(hidden), weight, static_cast<int>(hidden),
                  0.0F, logits, static_cast<int>(chunk));
      RowState* state = states.data() + tile * kRowTile;
      for (int64_t r = 0; r < kRowTile; ++r) {
        if (begin[r] >= 0) fold_chunk(logits + r * chunk, first, n, begin[r], state[r]);
      }
    });
  }
  for (int64_t i = 0; i < n_rows; ++i) {
    const RowState& s = states[static_cast<std::size_t>(i)];
    const int32_t target = targets[static_cast<std::size_t>(i)];
    if (target < 0) continue;
    out.nll_nats[i] = std::log(s.sum) + (static_cast<double>(s.max) - s.target);
    out.is_argmax[i] = s.argmax == target ? 1 : 0;
    if (out.argmax != nullptr) out.argmax[i] = static_cast<int32_t>(s.argmax);
  }
}

}  // namespace winnow::cpu
