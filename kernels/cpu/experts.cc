#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace winnow::cpu {

namespace {

using Floats = std::vector<float>;

// Rows of one product of an expert. Few, since an expert has few of the rows of a chunk and the rest is padding. They
// are the columns of what OpenBLAS computes, (features, kExpertRows), and so the lanes of its vectors: all lanes take
// the same steps, while the rows of a product do not (its Haswell kernels compute the last four of sixteen otherwise).
// A row's place among them follows from the other rows and must not matter.
constexpr int64_t kExpertRows = 16;

std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

// logits (n_rows, n_experts) = x W^T.
void multiply_router(const float* x, const kernels::Matrix& weight, int64_t n_rows, float* logits) {
  const auto n_experts = static_cast<int>(weight.rows);
  const auto hidden = static_cast<int>(weight.cols);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(n_rows), n_experts, hidden, 1.0F, x, hidden,
              weight.as<float>(), hidden, 0.0F, logits, n_experts);
}

// out (n_out, kExpertRows) = W x; W (n_out, n_in), x (n_in, kExpertRows) or, where it is turned, (kExpertRows, n_in).
void multiply(const float* weight, const Floats& x, bool is_turned, int64_t n_out, int64_t n_in, Floats& out) {
  const auto in = static_cast<int>(n_in);
  constexpr auto kCols = static_cast<int>(kExpertRows);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, is_turned ? CblasTrans : CblasNoTrans, static_cast<int>(n_out), kCols, in,
              1.0F, weight, in, x.data(), is_turned ? in : kCols, 0.0F, out.data(), kCols);
}

// Adds one value to each row of `out`; nothing where there is no bias.
void add_bias(const float* bias, Floats& out) {
  if (bias == nullptr) return;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += bias[i / index(kExpertRows)];
}

// The `count` largest values, ties to the lower index; in the order of their index. NaN is never larger.
std::vector<int64_t> largest(std::span<const float> values, int64_t count) {
  std::vector<bool> is_taken(values.size());
  for (int64_t n = 0; n < count; ++n) {
    std::size_t best = values.size();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!is_taken[i] && (best == values.size() || values[i] > values[best])) best = i;
    }
    is_taken[best] = true;
  }
  std::vector<int64_t> chosen;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (is_taken[i]) chosen.push_back(static_cast<int64_t>(i));
  }
  return chosen;
}

// Turns logits into the softmax over them, in place.
void soften(std::span<float> logits) {
  const float most = *std::ranges::max_element(logits);
  float sum = 0.0F;
  for (float& logit : logits) sum += logit = std::exp(logit - most);
  for (float& logit : logits) logit /= sum;
}

// Leaves to be chosen from the experts of the best groups.
void keep_best_groups(const kernels::RouterShape& shape, std::span<float> choice) {
  if (shape.top_groups == shape.n_groups) return;
  const auto size = index(shape.n_experts / shape.n_groups);
  Floats of_groups;
  for (std::size_t begin = 0; begin < choice.size(); begin += size) {
    const auto group = choice.subspan(begin, size);
    float sum = 0.0F;
    for (const int64_t i : largest(group, std::min<int64_t>(2, static_cast<int64_t>(size)))) sum += group[index(i)];
    of_groups.push_back(sum);
  }
  const std::vector<int64_t> best = largest(of_groups, shape.top_groups);
  for (std::size_t i = 0; i < choice.size(); ++i) {
    if (!std::ranges::binary_search(best, static_cast<int64_t>(i / size))) choice[i] = kHidden;
  }
}

// The experts of one row, in the order of their index, with their weights.
struct Choice {
  std::span<int64_t> experts;  // (top_k)
  std::span<float> weights;    // (top_k)
};

// `scores` are the router's logits, and are overwritten.
void choose(const kernels::RouterShape& shape, const float* correction, std::span<float> scores, const Choice& to) {
  if (shape.scores == kernels::RouterScores::kSoftmax) soften(scores);
  if (shape.scores == kernels::RouterScores::kSigmoid) {
    for (float& score : scores) score = 1.0F / (1.0F + std::exp(-score));
  }
  Floats choice(scores.begin(), scores.end());
  for (std::size_t i = 0; correction != nullptr && i < choice.size(); ++i) choice[i] += correction[i];
  keep_best_groups(shape, choice);
  std::ranges::copy(largest(choice, shape.top_k), to.experts.begin());
  for (std::size_t k = 0; k < to.experts.size(); ++k) to.weights[k] = scores[index(to.experts[k])];
  if (shape.scores == kernels::RouterScores::kSoftmaxOfChosen) soften(to.weights);
  float sum = 0.0F;
  for (const float weight : to.weights) sum += weight;
  // Transformers' smallest addend: it keeps a sum of nothing from dividing.
  const float factor = shape.normalised ? shape.scale / (sum + 1e-20F) : shape.scale;
  for (float& weight : to.weights) weight *= factor;
}

// A row of one expert: the row, and which of its top_k experts that is.
struct Place {
  int64_t row;
  int64_t slot;  // row * top_k + k
};

// Rows of one expert that are multiplied together.
struct Piece {
  int64_t expert;
  std::span<const Place> places;  // kExpertRows or fewer
};

// The rows of each expert, in ascending order; chosen (n_rows, top_k).
std::vector<std::vector<Place>> places_of(std::span<const int64_t> chosen, int64_t n_experts, int64_t top_k) {
  std::vector<std::vector<Place>> of_experts(index(n_experts));
  for (std::size_t slot = 0; slot < chosen.size(); ++slot) {
    const auto at = static_cast<int64_t>(slot);
    of_experts[index(chosen[slot])].push_back({at / top_k, at});
  }
  return of_experts;
}

std::vector<Piece> pieces_of(std::span<const std::vector<Place>> of_experts) {
  std::vector<Piece> pieces;
  for (std::size_t expert = 0; expert < of_experts.size(); ++expert) {
    const std::span<const Place> places = of_experts[expert];
    for (std::size_t at = 0; at < places.size(); at += kExpertRows) {
      const std::size_t n = std::min<std::size_t>(kExpertRows, places.size() - at);
      pieces.push_back({static_cast<int64_t>(expert), places.subspan(at, n)});
    }
  }
  return pieces;
}

// Memory of one thread.
struct Scratch {
  Scratch(int64_t hidden, int64_t ffn)
      : x(index(kExpertRows * hidden)),
        gate_up(index(kExpertRows * 2 * ffn)),
        gated(index(kExpertRows * ffn)),
        out(index(kExpertRows * hidden)) {}
  Floats x, gate_up, gated, out;
};

}  // namespace

int64_t CpuBackend::experts_bytes(int64_t n_rows, int64_t hidden, int64_t ffn,
                                  const kernels::RouterShape& shape) const {
  const int64_t of_rows = n_rows * (shape.n_experts + shape.top_k * (hidden + 1));
  const int64_t of_threads = pool_.size() * kExpertRows * (2 * hidden + 3 * ffn);
  const int64_t of_places = n_rows * shape.top_k * static_cast<int64_t>(sizeof(Place) + sizeof(int64_t));
  return (of_rows + of_threads) * static_cast<int64_t>(sizeof(float)) + of_places;
}

void CpuBackend::do_experts(kernels::ConstRows x, const kernels::Router& router, const kernels::Experts& experts,
                            kernels::Activation activation, kernels::Rows out) {
  const kernels::RouterShape& shape = router.shape;
  const int64_t hidden = x.cols;
  const int64_t ffn = experts.down.cols;
  const int64_t n_experts = shape.n_experts;
  const int64_t top_k = shape.top_k;
  const auto* from = x.as<float>();
  auto* to = out.as<float>();
  const auto* router_bias = router.bias.as<float>();
  const auto* gate_up_bias = experts.gate_up_bias.as<float>();
  const auto* down_bias = experts.down_bias.as<float>();

  Floats logits(index(x.n_rows * n_experts));
  Floats weights(index(x.n_rows * top_k));
  std::vector<int64_t> chosen(weights.size());
  pool_.run(x.n_rows / kRowTile, [&](int64_t tile, int) {
    const int64_t first = tile * kRowTile;
    multiply_router(from + first * hidden, router.weight, kRowTile, logits.data() + first * n_experts);
    for (int64_t row = first; row < first + kRowTile; ++row) {
      const std::span<float> of_row(logits.data() + row * n_experts, index(n_experts));
      if (router_bias != nullptr) kernels_.add_row(router_bias, n_experts, 1.0F, of_row.data());
      choose(shape, router.correction.as<float>(), of_row,
             {{chosen.data() + row * top_k, index(top_k)}, {weights.data() + row * top_k, index(top_k)}});
    }
  });

  const std::vector<std::vector<Place>> of_experts = places_of(chosen, n_experts, top_k);
  const std::vector<Piece> pieces = pieces_of(of_experts);

  // What each expert makes of each of its rows, by slot: summed afterwards, in the order of the experts.
  Floats results(index(x.n_rows * top_k * hidden));
  std::vector<Scratch> scratches(index(pool_.size()), Scratch(hidden, ffn));
  pool_.run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int thread) {
    const Piece& piece = pieces[index(task)];
    Scratch& scratch = scratches[index(thread)];
    std::ranges::fill(scratch.x, 0.0F);
    for (std::size_t i = 0; i < piece.places.size(); ++i) {
      std::copy_n(from + piece.places[i].row * hidden, hidden, scratch.x.data() + static_cast<int64_t>(i) * hidden);
    }
    // The shapes of these calls depend on the weights alone.
    const int64_t e = piece.expert;
    multiply(experts.gate_up.as<float>() + e * 2 * ffn * hidden, scratch.x, true, 2 * ffn, hidden, scratch.gate_up);
    add_bias(gate_up_bias == nullptr ? nullptr : gate_up_bias + e * 2 * ffn, scratch.gate_up);
    const int64_t n = ffn * kExpertRows;
    kernels_.gate_row(scratch.gate_up.data(), scratch.gate_up.data() + n, n, activation, scratch.gated.data());
    multiply(experts.down.as<float>() + e * hidden * ffn, scratch.gated, false, hidden, ffn, scratch.out);
    add_bias(down_bias == nullptr ? nullptr : down_bias + e * hidden, scratch.out);
    for (std::size_t i = 0; i < piece.places.size(); ++i) {
      float* result = results.data() + piece.places[i].slot * hidden;
      for (int64_t k = 0; k < hidden; ++k) result[k] = scratch.out[index(k * kExpertRows) + i];
    }
  });

  pool_.run(x.n_rows / kRowTile, [&](int64_t tile, int) {
    for (int64_t row = tile * kRowTile; row < (tile + 1) * kRowTile; ++row) {
      float* sum = to + row * hidden;
      std::fill_n(sum, hidden, 0.0F);
      for (int64_t slot = row * top_k; slot < (row + 1) * top_k; ++slot) {
        kernels_.add_row(results.data() + slot * hidden, hidden, weights[index(slot)], sum);
      }
    }
  });
}

}  // namespace winnow::cpu
