// Products of sorted rows, each with the matrix of its expert.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/experts/routing.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/layer_kinds.h"

namespace winnow::cuda {

struct GroupedProduct {
  const ExpertTile* tiles;  // null: all rows belong to the only expert
  int64_t n_tiles;
  int64_t n_rows;      // that there are places for
  const Bf16* x;       // (rows, n_in)
  const int* rows;     // row of x at each place; null: the place itself
  const Bf16* weight;  // of expert after expert
  const Bf16* bias;    // as many values as `weight` has rows, or null
  int n_in;            // multiple of 8
  int n_out;           // multiple of 8, or any number where there is no bias and no gate
};

// Set out[place] = W_e x[row] + b_e, weights (n_experts * n_out, n_in); or the activation of gate and up, weights
// (n_experts * 2 * n_out, n_in), of an expert gate, then up. A row's result depends on that row and its expert alone:
// it is summed along n_in in one order, in float32. out: (places, n_out).
void grouped_product(const GroupedProduct& product, float* out, cudaStream_t stream);
void gated_grouped_product(const GroupedProduct& product, kernels::Activation activation, Bf16* out,
                           cudaStream_t stream);

}  // namespace winnow::cuda
