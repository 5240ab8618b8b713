// Mixtures of experts: the MLP of a layer is several, of which a router chooses a few for every row.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace winnow::kernels {

// How a router's logits become the scores of its experts.
enum class RouterScores : int {
  kSoftmax,          // over all experts, of which the best are then chosen
  kSigmoid,          // of each expert by itself
  kSoftmaxOfChosen,  // the best logits are chosen, and the softmax is over those alone
};

struct RouterShape {
  RouterScores scores = RouterScores::kSoftmax;
  int64_t n_experts = 0;
  int64_t top_k = 0;  // experts chosen for a row
  // Experts in n_groups groups of equal size, one after another: only those of the top_groups groups are chosen from
  // whose two best experts have the largest sum.
  int64_t n_groups = 1;
  int64_t top_groups = 1;
  bool normalised = false;  // weights of the chosen are divided by their sum
  float scale = 1.F;        // then multiplied
};

// The vectors are float32 on every backend.
struct Router {
  Matrix weight;      // (n_experts, hidden)
  Matrix bias;        // (n_experts), added to logits, or none
  Matrix correction;  // (n_experts), added to scores where experts are chosen and nowhere else, or none
  RouterShape shape;
};

// The weights of all experts of a layer, expert after expert.
struct Experts {
  Matrix gate_up;       // (n_experts * 2 * ffn, hidden): of an expert gate, then up
  Matrix gate_up_bias;  // (n_experts * 2 * ffn), or none
  Matrix down;          // (n_experts * hidden, ffn)
  Matrix down_bias;     // (n_experts * hidden), or none
};

}  // namespace winnow::kernels
