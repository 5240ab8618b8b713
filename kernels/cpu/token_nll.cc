#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/convert.h"
#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

// Vocabulary entries whose logits are held at a time.
constexpr int64_t kVocabChunk = 512;

// Normalisation of a row's softmax over the vocabulary seen so far.
struct Softmax {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0.0;  // of exp(logit - max)

  // Adds n logits, of which `best` is the largest, and returns what sums over the former ones must be multiplied with.
  double add(const VectorKernels& kernels, const float* logits, int64_t n, float best) {
    const float new_max = std::max(max, best);
    const float part = kernels.exp_sum(logits, n, new_max);
    const double rescale = sum == 0.0 ? 0.0 : std::exp(static_cast<double>(max) - new_max);
    sum = (sum == 0.0 ? 0.0 : sum * rescale) + static_cast<double>(part);
    max = new_max;
    return rescale;
  }
  double log_sum() const { return std::log(sum) + static_cast<double>(max); }
};

// Statistics of one row over the vocabulary seen so far.
struct RowState {
  Softmax softmax;
  float target = 0.0F;
  int64_t argmax = -1;
  // Of its reference row, where it has one:
  Softmax reference;
  double difference = 0.0;  // sum of exp(reference logit - max) * (reference logit - logit)
};

// Logits of one row of vocabulary entries [first, first + n).
struct Chunk {
  const float* logits;
  int64_t first;
  int64_t n;
};

void fold_chunk(const VectorKernels& kernels, const Chunk& chunk, int32_t target, RowState& state) {
  const auto& [logits, first, n] = chunk;
  const auto best = std::max_element(logits, logits + n);  // the first of equals
  // A NaN logit makes `best` meaningless; the sum is NaN then, and so is the result.
  if (*best > state.softmax.max || state.argmax < 0) state.argmax = first + (best - logits);
  state.softmax.add(kernels, logits, n, *best);
  if (target >= first && target < first + n) state.target = logits[target - first];
}

void fold_reference(const VectorKernels& kernels, const float* reference, const Chunk& chunk, RowState& state) {
  const float best = *std::max_element(reference, reference + chunk.n);
  const float max = std::max(state.reference.max, best);
  const float part = kernels.weighted_difference(reference, chunk.logits, chunk.n, max);
  const double rescale = state.reference.add(kernels, reference, chunk.n, best);
  state.difference = state.difference * rescale + static_cast<double>(part);
}

// sum of p_r (log p_r - log p): the logits' mean difference under p_r less the difference of the normalisations.
double kl_of(const RowState& s) {
  const double kl = s.difference / s.reference.sum - (s.reference.log_sum() - s.softmax.log_sum());
  return kl < 0.0 ? 0.0 : kl;  // by rounding; NaN stays
}

// Tiles of rows that one task takes: with the same reference, whose logits it computes once.
struct TileTask {
  int32_t reference = -1;
  std::vector<int64_t> tiles;
};

std::vector<TileTask> group_tiles(std::span<const int32_t> targets, const kernels::TokenScores& out) {
  constexpr std::size_t kMostTiles = 2;  // so that all threads have work
  std::map<int32_t, TileTask> open;
  std::vector<TileTask> tasks;
  for (int64_t tile = 0; tile * kRowTile < static_cast<int64_t>(targets.size()); ++tile) {
    const auto begin = targets.begin() + tile * kRowTile;
    if (std::all_of(begin, begin + kRowTile, [](int32_t t) { return t < 0; })) continue;
    const int32_t reference = out.kl_nats.empty() ? -1 : out.reference.tiles[static_cast<std::size_t>(tile)];
    TileTask& task = open[reference];
    task.reference = reference;
    task.tiles.push_back(tile);
    if (reference < 0 || task.tiles.size() == kMostTiles) {
      tasks.push_back(std::move(task));
      open.erase(reference);
    }
  }
  for (auto& [reference, task] : open) tasks.push_back(std::move(task));
  return tasks;
}

int64_t weight_chunk_bytes(int64_t hidden, int64_t vocab) {
  return std::min(kVocabChunk, vocab) * hidden * static_cast<int64_t>(sizeof(float));
}

// Of a tile and of its reference.
int64_t logit_bytes(int64_t vocab, int n_threads) {
  return int64_t{2} * n_threads * kRowTile * std::min(kVocabChunk, vocab) * static_cast<int64_t>(sizeof(float));
}

}  // namespace

int64_t token_nll_bytes(int64_t hidden, int64_t vocab, int n_threads) {
  return weight_chunk_bytes(hidden, vocab) + logit_bytes(vocab, n_threads);
}

void CpuBackend::do_token_nll(kernels::ConstRows x, const kernels::Matrix& head, const kernels::LogitShape& shape,
                              std::span<const int32_t> targets, const kernels::TokenScores& out) {
  const auto* from = x.as<float>();
  const int64_t hidden = head.cols;
  const std::vector<TileTask> tasks = group_tiles(targets, out);
  const int64_t chunk = std::min(kVocabChunk, head.rows);
  std::vector<RowState> states(targets.size());
  const auto weight_memory = allocate(weight_chunk_bytes(hidden, head.rows), "a piece of the head");
  const auto logit_memory = allocate(logit_bytes(head.rows, pool_.size()), "logits of a tile");
  auto* weight = static_cast<float*>(weight_memory->data());
  for (int64_t first = 0; first < head.rows; first += chunk) {
    const int64_t n = std::min(chunk, head.rows - first);
    pool_.run((n + kRowTile - 1) / kRowTile, [&](int64_t task, int) {
      const int64_t v = task * kRowTile;
      const kernels::Matrix rows = head.slice(first + v, std::min(kRowTile, n - v));
      kernels::to_float32(static_cast<const std::byte*>(rows.data), rows.dtype, rows.rows * hidden,
                          weight + v * hidden);
    });
    pool_.run(static_cast<int64_t>(tasks.size()), [&](int64_t index, int thread) {
      const TileTask& task = tasks[static_cast<std::size_t>(index)];
      float* logits = static_cast<float*>(logit_memory->data()) + int64_t{2} * thread * kRowTile * chunk;
      float* reference = logits + kRowTile * chunk;
      const auto multiply = [&](const float* rows, float* to) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kRowTile, static_cast<int>(n), static_cast<int>(hidden),
                    shape.scale, rows, static_cast<int>(hidden), weight, static_cast<int>(hidden), 0.0F, to,
                    static_cast<int>(chunk));
        if (shape.softcap == 0.F) return;
        for (int64_t r = 0; r < kRowTile; ++r) kernels_.cap_row(to + r * chunk, n, shape.softcap);
      };
      if (task.reference >= 0) {
        multiply(out.reference.x.as<float>() + task.reference * kRowTile * hidden, reference);
      }
      for (const int64_t tile : task.tiles) {
        multiply(from + tile * kRowTile * hidden, logits);
        for (int64_t r = 0; r < kRowTile; ++r) {
          const auto row = static_cast<std::size_t>(tile * kRowTile + r);
          if (targets[row] < 0) continue;
          const Chunk of_row{logits + r * chunk, first, n};
          fold_chunk(kernels_, of_row, targets[row], states[row]);
          if (task.reference >= 0) fold_reference(kernels_, reference + r * chunk, of_row, states[row]);
        }
      }
    });
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const RowState& s = states[i];
    const int32_t target = targets[i];
    if (target < 0) continue;
    out.nll_nats[i] = std::log(s.softmax.sum) + (static_cast<double>(s.softmax.max) - s.target);
    out.is_argmax[i] = s.argmax == target ? 1 : 0;
    if (!out.argmax.empty()) out.argmax[i] = static_cast<int32_t>(s.argmax);
    const std::size_t tile = i / static_cast<std::size_t>(kRowTile);
    if (!out.kl_nats.empty() && out.reference.tiles[tile] >= 0) out.kl_nats[i] = kl_of(s);
  }
}

}  // namespace winnow::cpu
